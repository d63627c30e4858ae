//! Huge pages of the host, which its administrator sets aside (the kernel's `hugetlbpage` document).

use std::fs;

use super::MemoryError;
use crate::size::human;

/// What the host has of them, of the size that is its default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HugePages {
    /// Bytes of a page; 0: the kernel has none.
    size: u64,
    /// How many were set aside.
    total: u64,
    /// Those of them that nobody has, and that were not promised to anybody.
    free: u64,
}

impl HugePages {
    /// Asks the kernel.
    pub(super) fn of_this_host() -> Self {
        Self::parse(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    /// Reads /proc/meminfo (proc(5)).
    fn parse(meminfo: &str) -> Self {
        let field = |name: &str| {
            let lines = meminfo.lines();
            let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = values.next()?.split_whitespace().next()?;
            number.parse::<u64>().ok()
        };
        let count = |name| field(name).unwrap_or(0);
        Self {
            size: count("Hugepagesize").saturating_mul(1024),
            total: count("HugePages_Total"),
            free: count("HugePages_Free").saturating_sub(count("HugePages_Rsvd")),
        }
    }

    /// Checks that `size` bytes can be had, now.
    ///
    /// # Errors
    /// No huge pages at all, not whole ones, or too few.
    pub(super) fn check(self, size: u64) -> Result<(), MemoryError> {
        if self.size == 0 {
            return Err(MemoryError::NoHugePages);
        }
        if !size.is_multiple_of(self.size) {
            return Err(MemoryError::NotHuge {
                size,
                page: self.size,
            });
        }
        if size / self.size > self.free {
            return Err(self.too_few(size));
        }
        Ok(())
    }

    /// The error of a host that has too few for `size` bytes.
    pub(super) fn too_few(self, size: u64) -> MemoryError {
        let needed = size.div_ceil(self.size.max(1));
        // At least one: somebody else may have been quicker.
        let missing = needed.saturating_sub(self.free).max(1);
        MemoryError::FewHugePages {
            size,
            needed,
            page: human(self.size),
            free: self.free,
            missing,
            sysctl: self.total.saturating_add(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       24571060 kB\nHugePages_Total:      64\n\
                           HugePages_Free:       40\nHugePages_Rsvd:       10\n\
                           HugePages_Surp:        0\nHugepagesize:       2048 kB\n";

    #[test]
    fn what_is_missing_is_told_with_the_line_that_helps() {
        let pages = HugePages::parse(MEMINFO);
        assert_eq!((pages.size, pages.total, pages.free), (2 << 20, 64, 30));
        pages.check(60 << 20).unwrap();
        let refused = |size| pages.check(size).unwrap_err().to_string();
        assert_eq!(
            refused(128 << 20),
            "guest memory of 128 MiB needs 64 huge pages of 2 MiB, and 30 are free: 34 are missing. Set \
             more aside (`sysctl vm.nr_hugepages=98`), or leave hugepages=on out"
        );
        assert_eq!(
            refused(129 << 20),
            "guest memory of 129 MiB is not a multiple of this host's huge pages, which have 2 MiB"
        );
        let raced = pages.too_few(60 << 20).to_string();
        assert!(raced.contains("1 are missing"), "{raced}");
    }

    #[test]
    fn a_kernel_without_huge_pages_says_so() {
        let sentence = HugePages::parse("MemTotal: 1 kB\n").check(1 << 30);
        let sentence = sentence.unwrap_err().to_string();
        assert!(sentence.contains("CONFIG_HUGETLBFS"), "{sentence}");
        assert_eq!(HugePages::parse(""), HugePages::default());
    }
}
