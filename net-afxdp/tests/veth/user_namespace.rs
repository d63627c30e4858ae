//! In a user namespace: which rights count, and the BPF token that makes up for them.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use net_afxdp::{Port, PortConfig, Probe};
use rustix::{
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, move_mount,
    },
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};

use crate::{
    child,
    net::{Net, skipped},
};

/// As root of a user namespace, with network and mounts of its own.
const UNSHARE: [&str; 5] = ["unshare", "--user", "--map-root-user", "--net", "--mount"];

/// In the child: rights that count, and what is in the way, in one line.
pub(crate) fn probe(ifname: &str) -> String {
    let probe = Probe::interface(ifname).unwrap();
    let held = probe.rights.iter().filter(|right| right.held);
    let held: Vec<_> = held.map(|right| right.name).collect();
    let problems = probe.problems.iter().filter(|it| it.blocks);
    let problems: Vec<_> = problems
        .map(|it| format!("{}: {}", it.what, it.fix))
        .collect();
    format!("held {}; {}", held.join(" "), problems.join("; "))
}

/// In the child: gets a bpffs with rights from whoever listens at `path`, and opens an interface by them.
pub(crate) fn with_token(path: &str) {
    let stream = UnixStream::connect(path).unwrap();
    // Made in here, so that the rights are this user namespace's.
    let bpffs = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    send(&stream, bpffs.as_fd());
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(receive(&stream), "", rustix::fs::CWD, "/sys/fs/bpf", flags).unwrap();
    let config = PortConfig {
        ifname: "lo".to_owned(),
        frames: 64,
        ..PortConfig::default()
    };
    let opened = Port::open(&config).map(|port| port.mode());
    println!("\n> {opened:?}, {}", probe("lo"));
}

#[test]
fn rights_count_where_the_kernel_asks_for_them() {
    let Some(_net) = Net::new() else { return };
    let mut child = child::start_under(&UNSHARE, "user-namespace", "lo");
    let text = child::line(&mut child);
    assert!(child.wait().unwrap().success());
    assert!(text.starts_with("held CAP_NET_RAW; cannot load"), "{text}");
    for part in [
        "in a user namespace, whose capabilities do not count",
        "run it outside of the user namespace",
        "BPF token",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Those of the initial one do.
    let text = probe("lo");
    assert!(
        text.starts_with("held CAP_NET_RAW CAP_NET_ADMIN CAP_BPF CAP_IPC_LOCK; "),
        "{text}"
    );
}

#[test]
fn a_bpf_token_makes_up_for_rights() {
    let Some(_net) = Net::new() else { return };
    let path = std::env::temp_dir().join(format!("net-afxdp-token-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = child::start_under(&UNSHARE, "bpf-token", path.to_str().unwrap());
    let (stream, _) = listener.accept().unwrap();
    std::fs::remove_file(&path).unwrap();
    let bpffs = receive(&stream);
    for key in ["cmds", "maps", "progs", "attachs"] {
        if fsconfig_set_string(&bpffs, format!("delegate_{key}"), "any").is_err() {
            skipped("a BPF token: this kernel (before 6.9) has none");
            child.kill().unwrap();
            child.wait().unwrap();
            return;
        }
    }
    fsconfig_create(&bpffs).unwrap();
    let mount = fsmount(
        &bpffs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    );
    send(&stream, mount.unwrap().as_fd());
    let text = child::line(&mut child);
    assert!(child.wait().unwrap().success());
    // CAP_IPC_LOCK does not come with it, so the limit of locked memory holds.
    assert!(text.starts_with("Ok(Skb), held CAP_NET_RAW; "), "{text}");
    assert!(!text.contains("load the XDP program"), "{text}");
}

fn send(stream: &UnixStream, descriptor: BorrowedFd<'_>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let data = [IoSlice::new(b"x")];
    sendmsg(stream, &data, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

fn receive(stream: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    recvmsg(stream, &mut data, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut descriptors = ancillary.drain().flat_map(|part| match part {
        RecvAncillaryMessage::ScmRights(rights) => rights.collect(),
        _ => Vec::new(),
    });
    descriptors.next().expect("a descriptor")
}
