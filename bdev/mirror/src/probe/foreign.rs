//! Signatures of what else may live on a device, so that a refusal can name it.

use thiserror::Error;

use super::Image;

/// Somebody else's data, by its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum ForeignContent {
    /// ext2, ext3 or ext4.
    #[error("an ext2/3/4 file system")]
    Ext,
    /// XFS.
    #[error("an XFS file system")]
    Xfs,
    /// Btrfs.
    #[error("a Btrfs file system")]
    Btrfs,
    /// NTFS.
    #[error("an NTFS file system")]
    Ntfs,
    /// Swap space.
    #[error("swap space")]
    Swap,
    /// LUKS.
    #[error("a LUKS container")]
    Luks,
    /// An LVM2 physical volume.
    #[error("an LVM2 physical volume")]
    Lvm,
    /// A Linux MD member.
    #[error("a member of a Linux MD array")]
    Md,
    /// A QEMU disk image.
    #[error("a qcow2 image")]
    Qcow2,
    /// A GUID partition table.
    #[error("a GUID partition table")]
    Gpt,
    /// A DOS partition table or a boot sector.
    #[error("a partition table or boot sector")]
    Mbr,
    /// Data without a known signature.
    #[error("data that this program does not know")]
    Unknown,
}

/// Bytes at an offset that give something away.
struct Signature {
    offset: usize,
    bytes: &'static [u8],
    content: ForeignContent,
}

const fn signature(offset: usize, bytes: &'static [u8], content: ForeignContent) -> Signature {
    Signature { offset, bytes, content }
}

const MD_MAGIC: &[u8] = &0xa92b_4efc_u32.to_le_bytes();

/// The more telling ones first: a boot sector signature is on many things.
const AT_START: &[Signature] = &[
    signature(1080, &[0x53, 0xef], ForeignContent::Ext),
    signature(0, b"XFSB", ForeignContent::Xfs),
    signature(65_600, b"_BHRfS_M", ForeignContent::Btrfs),
    signature(3, b"NTFS    ", ForeignContent::Ntfs),
    signature(4086, b"SWAPSPACE2", ForeignContent::Swap),
    signature(0, b"LUKS\xba\xbe", ForeignContent::Luks),
    signature(0, b"LABELONE", ForeignContent::Lvm),
    signature(512, b"LABELONE", ForeignContent::Lvm),
    signature(1024, b"LABELONE", ForeignContent::Lvm),
    signature(1536, b"LABELONE", ForeignContent::Lvm),
    signature(4096, MD_MAGIC, ForeignContent::Md),
    signature(0, MD_MAGIC, ForeignContent::Md),
    signature(0, b"QFI\xfb", ForeignContent::Qcow2),
    signature(512, b"EFI PART", ForeignContent::Gpt),
    signature(4096, b"EFI PART", ForeignContent::Gpt),
    signature(510, &[0x55, 0xaa], ForeignContent::Mbr),
];

/// What lives here, by its signature; `None` when no signature matches.
pub(super) fn look(image: &Image<'_>) -> Option<ForeignContent> {
    let matches = |found: &&Signature| image.head[found.offset..].starts_with(found.bytes);
    AT_START.iter().find(matches).map(|found| found.content).or_else(|| md_at_end(image))
}

/// MD 1.0 keeps its superblock 8 KiB before the end, 0.90 on the last multiple of 64 KiB that leaves as much
/// behind it.
fn md_at_end(image: &Image<'_>) -> Option<ForeignContent> {
    const KIB: u64 = 1024;
    let start = image.leg_size / 4096 * 4096 - image.tail.len() as u64;
    let version_1_0 = (image.leg_size / 512 - 16) / 8 * 8 * 512;
    let version_0_90 = image.leg_size / (64 * KIB) * (64 * KIB) - 64 * KIB;
    let has_magic = |at: u64| {
        let relative = usize::try_from(at.checked_sub(start)?).ok()?;
        image.tail.get(relative..)?.starts_with(MD_MAGIC).then_some(ForeignContent::Md)
    };
    has_magic(version_1_0).or_else(|| has_magic(version_0_90))
}
