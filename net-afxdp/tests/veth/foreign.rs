//! Programs and maps of others, as another process would make them.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, Xdp, XdpFlags};
use net_afxdp::{PortConfig, Queue};

use crate::{
    net::Net,
    packet::frame,
    traffic::{config, receive, send},
};

/// A program on an interface, attached by netlink, with its map.
pub(crate) struct Foreign {
    /// The program lives with the interface.
    _object: Object,
    pub(crate) map: MapHandle,
}

impl Foreign {
    /// With that many slots, replacing what is there.
    pub(crate) fn attach(interface: u32, slots: u32, flags: XdpFlags) -> Self {
        let object = Path::new(concat!(env!("OUT_DIR"), "/xsk.bpf.o"));
        Self::load(object, interface, slots, flags)
    }

    /// With 8 slots: the socket of queue Q is in slot Q + 5.
    pub(crate) fn attach_shifted(interface: u32, flags: XdpFlags) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/veth/shifted.bpf.c");
        let name = format!("net-afxdp-shifted-{}.o", std::process::id());
        let object = std::env::temp_dir().join(name);
        let clang = std::env::var_os("CLANG").unwrap_or_else(|| "clang".into());
        // As in build.rs.
        let include = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let status = Command::new(clang)
            .args([
                "-target",
                "bpf",
                "-mcpu=v2",
                "-O2",
                "-g",
                "-idirafter",
                &include,
            ])
            .args(["-c", source, "-o"])
            .arg(&object)
            .status();
        assert!(status.expect("clang").success());
        let foreign = Self::load(&object, interface, 8, flags);
        std::fs::remove_file(&object).unwrap();
        foreign
    }

    fn load(object: &Path, interface: u32, slots: u32, flags: XdpFlags) -> Self {
        let mut object = ObjectBuilder::default().open_file(object).unwrap();
        object
            .maps_mut()
            .next()
            .unwrap()
            .set_max_entries(slots)
            .unwrap();
        let object = object.load().unwrap();
        let map = MapHandle::try_from(&object.maps().next().unwrap()).unwrap();
        let program = object.progs().next().unwrap();
        let program = program.as_fd();
        Xdp::new(program)
            .attach(i32::try_from(interface).unwrap(), flags)
            .unwrap();
        Self {
            _object: object,
            map,
        }
    }

    pub(crate) fn map_fd(&self) -> OwnedFd {
        self.map.as_fd().try_clone_to_owned().unwrap()
    }

    /// Whether there is a socket in the slot. User space can't read it, but try to fill it.
    pub(crate) fn taken(&self, slot: u32) -> bool {
        let probe = with_ring();
        let value = probe.as_raw_fd().to_ne_bytes();
        let key = slot.to_ne_bytes();
        let free = self.map.update(&key, &value, MapFlags::NO_EXIST).is_ok();
        if free {
            self.map.delete(&key).unwrap();
        }
        !free
    }

    /// Puts a socket into a slot.
    pub(crate) fn insert(&self, slot: u32, socket: &OwnedFd) {
        let value = socket.as_raw_fd().to_ne_bytes();
        self.map
            .update(&slot.to_ne_bytes(), &value, MapFlags::ANY)
            .unwrap();
    }
}

/// An AF_XDP socket that nobody has set up.
pub(crate) fn socket() -> OwnedFd {
    let kind = rustix::net::SocketType::RAW;
    let flags = rustix::net::SocketFlags::CLOEXEC;
    rustix::net::socket_with(rustix::net::AddressFamily::XDP, kind, flags, None).unwrap()
}

/// The same with a receive ring, without which Linux 7.3 puts it into no map.
pub(crate) fn with_ring() -> OwnedFd {
    let socket = socket();
    rustix::net::sockopt::set_xdp_rx_ring_size(&socket, 64).unwrap();
    socket
}

/// A map of another type.
pub(crate) fn other_map() -> MapHandle {
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>()
            as libbpf_rs::libbpf_sys::size_t,
        ..Default::default()
    };
    MapHandle::create(MapType::Array, Some("rw_array"), 4, 4, 8, &options).unwrap()
}

/// A bpffs that only the calling thread, and the children that it starts, see.
pub(crate) struct Bpffs(PathBuf);

impl Bpffs {
    pub(crate) fn mount() -> Self {
        crate::net::unshare_mounts();
        let path = std::env::temp_dir().join(format!(
            "net-afxdp-bpffs-{}-{}",
            std::process::id(),
            rustix::thread::gettid().as_raw_nonzero()
        ));
        std::fs::create_dir(&path).unwrap();
        let bpffs = Self(path);
        let status = Command::new("mount")
            .args(["-t", "bpf", "-o", "mode=0755", "bpf"])
            .arg(&bpffs.0)
            .status()
            .unwrap();
        assert!(status.success());
        bpffs
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Sends and receives over each of these queues.
///
/// A frame that a veth sends from its queue Q arrives at queue Q of a native program. In skb mode
/// the kernel mistakes the number of the sender's queue for that of the receiver's plus one, so
/// that takes a queue more than is used.
pub(crate) fn carry_traffic(net: &Net, queues: &mut [Queue]) {
    let mut far_port = net_afxdp::Port::open(&PortConfig {
        queues: net.interface().queues(),
        frames: 64,
        ..config(&net.far)
    })
    .unwrap();
    let mut far = far_port.take_queues();
    let program = net.interface().xdp_program().cloned();
    let skb = program.is_some_and(|program| program.mode == "skb");
    for (number, queue) in (1..).zip(queues) {
        let id = usize::try_from(queue.id()).unwrap();
        let there: Vec<_> = (0..20).map(|n| frame(number * 100 + n, 200)).collect();
        let sender = &mut far[if skb && id > 0 { id + 1 } else { id }];
        for frame in &there {
            send(sender, frame).unwrap();
        }
        sender.flush().unwrap();
        assert!(receive(queue, 20) == there, "to queue {}", queue.id());
        for frame in &there {
            send(queue, frame).unwrap();
        }
        queue.flush().unwrap();
        assert!(
            receive(&mut far[id], 20) == there,
            "from queue {}",
            queue.id()
        );
        assert!(queue.accounting().is_balanced());
    }
}
