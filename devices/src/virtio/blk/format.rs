//! Files that are no raw images. They are used as raw ones all the same: what a disk begins with is the guest's to
//! choose, so to go by it would let a guest choose the format (and with it the host's files, that headers of images name).

/// Bytes of a file that are looked at.
pub(super) const LOOKED_AT: usize = 512;

/// A format that a file seems to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    offset: usize,
    magic: &'static [u8],
    /// What it is called.
    pub(super) name: &'static str,
    /// What makes a raw image of it.
    pub(super) remedy: &'static str,
}

const CONVERT: &str = "`qemu-img convert -O raw FILE NEW`";

const fn image(offset: usize, magic: &'static [u8], name: &'static str) -> Format {
    Format {
        offset,
        magic,
        name,
        remedy: CONVERT,
    }
}

const fn packed(magic: &'static [u8], name: &'static str, remedy: &'static str) -> Format {
    Format {
        offset: 0,
        magic,
        name,
        remedy,
    }
}

/// The magic numbers are those of each format's own description.
const FORMATS: &[Format] = &[
    image(0, b"QFI\xfb", "a qcow2"),
    image(0, b"QED\0", "a QED"),
    image(0, b"KDMV", "a VMDK"),
    image(0, b"COWD", "a VMDK"),
    image(0, b"# Disk DescriptorFile", "a VMDK"),
    image(0, b"vhdxfile", "a VHDX"),
    image(0, b"conectix", "a VHD"),
    image(64, b"\x7f\x10\xda\xbe", "a VDI"),
    image(0, b"WithoutFreeSpace", "a Parallels"),
    image(0, b"WithouFreSpacExt", "a Parallels"),
    packed(b"\x1f\x8b\x08", "a gzip", "`gunzip`"),
    packed(b"\xfd7zXZ\0", "an xz", "`unxz`"),
    packed(b"\x28\xb5\x2f\xfd", "a zstd", "`unzstd`"),
];

impl Format {
    /// What a file is that starts with these bytes; `None` if it may well be a raw image.
    pub(super) fn of(start: &[u8]) -> Option<&'static Self> {
        let fits = |format: &&Self| {
            let at = start.get(format.offset..);
            at.is_some_and(|at| at.starts_with(format.magic))
        };
        FORMATS.iter().find(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_known_by_its_first_bytes_and_by_no_fewer() {
        for format in FORMATS {
            let mut start = vec![0; format.offset];
            start.extend(format.magic);
            assert_eq!(Format::of(&start), Some(format));
            start.pop();
            assert_eq!(Format::of(&start), None, "{format:?}");
        }
    }

    #[test]
    fn raw_images_are_not_taken_for_others() {
        let mut boot_sector = [0; LOOKED_AT];
        boot_sector[..3].copy_from_slice(b"\xeb\x63\x90");
        boot_sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let luks = *b"LUKS\xba\xbe\0\x02";
        for start in [&boot_sector[..], &[0; LOOKED_AT], &luks, &[], b"QFI"] {
            assert_eq!(Format::of(start), None);
        }
    }
}
