//! virtio-rng, driven by a guest's driver without a guest. Needs no privileges.

use devices::{
    testing::{Buffer, DriverQueue, Face, TestDriver, Used, register},
    virtio::{
        queue::VERSION_1,
        rng::{MAX_REQUEST, RngDevice},
    },
};

struct Rng {
    driver: TestDriver,
    queue: DriverQueue,
    memory: u64,
}

impl Rng {
    fn new(face: Face) -> Self {
        let mut driver = TestDriver::on(face, RngDevice::new());
        let (queue, memory) = Self::bring_up(&mut driver);
        Self {
            driver,
            queue,
            memory,
        }
    }

    fn bring_up(driver: &mut TestDriver) -> (DriverQueue, u64) {
        let features = driver.offered();
        assert!(driver.negotiate(features | VERSION_1));
        let queue = driver.queue(0, 64);
        let memory = driver.allocate(1 << 20, 16);
        driver.start();
        (queue, memory)
    }

    fn submit(&mut self, buffers: &[Buffer]) -> Used {
        self.queue.add(buffers);
        self.driver.kick_if_wanted(&mut self.queue);
        self.queue.wait_used()
    }
}

/// Random bytes leave no run of zeros of this length in a test's lifetime.
fn is_filled(bytes: &[u8]) -> bool {
    bytes.chunks_exact(16).all(|chunk| chunk != [0; 16])
}

/// VIRTIO_F_RING_RESET (2.6.1).
#[test]
fn its_queue_can_be_reset() {
    for face in Face::ALL {
        let mut rng = Rng::new(face);
        for size in [8, 32, 64] {
            let used = rng.submit(&[Buffer::writable(rng.memory, 100)]);
            assert_eq!(used.len, 100);
            rng.driver.reset_queue(0);
            rng.queue = rng.driver.queue(0, size);
        }
        assert_eq!(rng.driver.status(), 15);
    }
}

#[test]
fn every_buffer_is_filled_and_no_two_alike() {
    for face in Face::ALL {
        let mut rng = Rng::new(face);
        let at = rng.memory;
        let used = rng.submit(&[
            Buffer::writable(at, 64),
            Buffer::writable(at + 100, 3000),
            Buffer::writable(at + 4000, 64),
        ]);
        assert_eq!(used.len, 3128);
        let bytes = rng.driver.read_memory(at, 4100);
        assert!(is_filled(&bytes[..64]) && is_filled(&bytes[100..3100]));
        assert_ne!(bytes[..64], bytes[4000..4064]);
        assert_eq!(bytes[64..100], [0; 36]);
        assert_eq!(bytes[3100..4000], [0; 900]);
        assert_eq!(rng.driver.wait_interrupt(), 1);
    }
}

#[test]
fn a_request_gets_at_most_the_limit() {
    for face in Face::ALL {
        let mut rng = Rng::new(face);
        let used = rng.submit(&[Buffer::writable(rng.memory, 1 << 20)]);
        assert_eq!(usize::try_from(used.len).unwrap(), MAX_REQUEST);
        let bytes = rng.driver.read_memory(rng.memory, 1 << 20);
        assert!(is_filled(&bytes[..MAX_REQUEST]));
        assert!(bytes[MAX_REQUEST..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn readable_and_empty_buffers_get_nothing() {
    for face in Face::ALL {
        let mut rng = Rng::new(face);
        let at = rng.memory;
        rng.driver.write_memory(at, &[7; 64]);
        assert_eq!(rng.submit(&[Buffer::readable(at, 64)]).len, 0);
        assert_eq!(rng.submit(&[Buffer::writable(at, 0)]).len, 0);
        let mixed = [Buffer::readable(at, 64), Buffer::writable(at + 64, 32)];
        assert_eq!(rng.submit(&mixed).len, 32);
        assert_eq!(rng.driver.read_memory(at, 64), [7; 64]);
        assert!(is_filled(&rng.driver.read_memory(at + 64, 32)));
    }
}

#[test]
fn a_broken_queue_and_resets_in_the_middle_heal() {
    for face in Face::ALL {
        let mut rng = Rng::new(face);
        rng.queue.offer(64);
        rng.driver.kick(0);
        rng.driver.wait_needs_reset();
        for _ in 0..200 {
            (rng.queue, rng.memory) = Rng::bring_up(&mut rng.driver);
            for _ in 0..16 {
                rng.queue.add(&[Buffer::writable(rng.memory, 4096)]);
            }
            rng.driver.kick(0);
        }
        (rng.queue, rng.memory) = Rng::bring_up(&mut rng.driver);
        assert_eq!(rng.submit(&[Buffer::writable(rng.memory, 16)]).len, 16);
    }
}

#[test]
fn the_configuration_space_is_empty() {
    for face in Face::ALL {
        let mut rng = Rng::new(face);
        assert_eq!(rng.driver.config::<8>(0), [0; 8]);
        assert_eq!(rng.driver.read(register::DEVICE_ID), 4, "device ID");
    }
}
