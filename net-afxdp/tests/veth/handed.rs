//! Sockets that were handed over and can't be used.

use std::os::fd::{AsRawFd, OwnedFd};

use net_afxdp::{Port, PortConfig, Prepared, Source, inherited};

use crate::{
    foreign::{carry_traffic, socket},
    net::Net,
    sources::{refusal, small},
    traffic::config,
};

#[test]
fn sockets_of_the_wrong_number_or_kind() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let two = PortConfig {
        queues: 2,
        ..small(&net)
    };
    let text = refusal(&two, Source::Sockets(vec![socket()]));
    let start = format!("{}: 1 socket was handed over for 2 queues", net.near);
    assert!(text.starts_with(&start), "{text}");
    let text = refusal(&two, Source::Sockets(vec![socket(), socket(), socket()]));
    assert!(text.contains("3 sockets were handed over for 2"), "{text}");

    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let text = refusal(&two, Source::Sockets(vec![socket(), udp.into()]));
    assert!(
        text.contains("number 2 of the sockets handed over is not an AF_XDP socket"),
        "{text}"
    );
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let text = refusal(&two, Source::Sockets(vec![file, socket()]));
    assert!(text.contains("number 1 of the sockets"), "{text}");
}

#[test]
fn a_socket_given_twice() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let two = PortConfig {
        queues: 2,
        ..small(&net)
    };
    let first = socket();
    // What `sock-fds=7:7` leads to.
    let sockets = [first.as_raw_fd(); 2].map(|number| inherited(number).unwrap());
    let text = refusal(&two, Source::Sockets(sockets.into()));
    assert!(
        text.contains("numbers 1 and 2 of the sockets handed over are the same"),
        "{text}"
    );
}

#[test]
fn a_descriptor_that_is_closed() {
    let Some(_net) = Net::new() else { return };
    let number = socket().as_raw_fd() + 1000;
    let error = inherited(number).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

#[test]
fn a_socket_that_is_bound_already() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let mut prepared = Prepared::open(&small(&net)).unwrap();
    let again = prepared.sockets()[0].try_clone().unwrap();
    let mut port = Port::open_from(&small(&net), prepared.take_source()).unwrap();
    // For the same queue and for another one.
    for start_queue in [0, 1] {
        let config = PortConfig {
            start_queue,
            ..small(&net)
        };
        let source = Source::Sockets(vec![again.try_clone().unwrap()]);
        let text = refusal(&config, source);
        let start = format!("queue {start_queue} of {}: the socket that was", net.near);
        assert!(
            text.starts_with(&start) && text.contains("has frame memory already"),
            "{text}"
        );
    }
    carry_traffic(&net, &mut port.take_queues());
}

#[test]
fn a_socket_for_another_interface() {
    let Some(net) = Net::new() else { return };
    let far = PortConfig {
        frames: 64,
        ..config(&net.far)
    };
    let mut prepared = Prepared::open(&far).unwrap();
    let sockets = prepared.take_sockets();
    let text = refusal(&small(&net), Source::Sockets(sockets));
    let end = format!("(SO_BINDTODEVICE): {}", net.far);
    assert!(text.ends_with(&end), "{text}");
}

#[test]
fn a_failure_at_a_later_queue_releases_the_sockets_before() {
    let Some(net) = Net::with_queues(2) else {
        return;
    };
    let two = PortConfig {
        queues: 2,
        ..small(&net)
    };
    let mut prepared = Prepared::open(&two).unwrap();
    let mut sockets = prepared.take_sockets();
    // Queue 1 has another owner.
    let busy = Port::open_from(
        &PortConfig {
            start_queue: 1,
            ..small(&net)
        },
        Source::Sockets(vec![socket()]),
    )
    .unwrap();
    let text = refusal(&two, Source::Sockets(std::mem::take(&mut sockets)));
    let start = format!("queue 1 of {}: another AF_XDP socket is bound", net.near);
    assert!(text.starts_with(&start), "{text}");
    drop(busy);
    drop(prepared);
    let mut port = Port::open(&two).unwrap();
    carry_traffic(&net, &mut port.take_queues());
}
