//! Kernels before Linux 6.17: up to 32 frames a call, and what was taken is told a call later.

use rustix::io::Errno;

use super::{
    model::{Luck, queue},
    tests::{frame, limits, send},
};

/// What such a kernel takes in one call.
const BATCH: u32 = 32;

#[test]
fn a_kernel_that_tells_late_is_called_once_for_each_batch_and_not_much_more() {
    for sent in [1, 10, 31, 32, 33, 64, 100, 127, 128] {
        let (mut path, model) = queue(512, limits(), u32::MAX - 5);
        for number in 0..sent {
            send(&mut path, &frame(number, 60)).unwrap();
        }
        // It says that there is more to do, and nothing of what it did.
        model.0.borrow_mut().luck = Luck::Refused(Errno::AGAIN);
        model.0.borrow_mut().kicks = 0;
        path.flush().unwrap();
        let calls = model.0.borrow().kicks;
        let batches = sent.div_ceil(BATCH);
        assert!(calls >= batches, "{calls} calls for {sent} frames");
        assert!(calls <= batches + 2, "{calls} calls for {sent} frames");
        model.0.borrow_mut().luck = Luck::Good;
        path.flush().unwrap();
        assert_eq!(path.unsent(), 0);
        assert_eq!(model.0.borrow().gone.len(), sent as usize);
    }
}
