//! Methods of SPDK's that this node has not, and why. They are not in the list of methods; whoever calls one learns what to use.

/// The beginning of a method's name, and what to say.
const ABSENT: [(&str, &str); 18] = [
    ("accel_assign_", "checksums and ciphers are the processor's own instructions"),
    ("accel_get_", "checksums and ciphers are the processor's own instructions"),
    ("accel_set_", "checksums and ciphers are the processor's own instructions"),
    ("bdev_lvol_", "there are no logical volumes yet: put LVM on the volume, or under the leg"),
    ("bdev_nvme_", "there is no NVMe driver: bdev_uring_create opens the kernel's device"),
    ("bdev_split_", "partitions are below the node: give a partition to bdev_uring_create"),
    ("bdev_ftl_", "there is no flash translation layer"),
    ("framework_get_governor", "core frequencies are the system's"),
    ("iobuf_get_stats", "buffers come from one arena: node_get_limits shows its use"),
    ("iscsi_enable_histogram", "each LUN has percentiles: lun_get_list; a bdev has bdev_enable_histogram"),
    ("iscsi_get_histogram", "each LUN has percentiles: lun_get_list; a bdev has bdev_get_histogram"),
    ("iscsi_get_stats", "iscsi_get_connections lists the connections, lun_get_list what each LUN did"),
    ("nbd_", "there is no NBD export: qemu-storage-daemon gives one of the LUN"),
    ("nvmf_", "iSCSI is the only export"),
    ("scheduler_", "each reactor stays on its core (gemeld --cores)"),
    ("trace_", "there are no trace points: bdev_get_latency and bdev_get_histogram show where the time goes"),
    ("ublk_", "iSCSI is the only export"),
    ("vhost_", "iSCSI is the only export"),
];

/// Why a method is absent, if it is known.
pub(super) fn reason(method: &str) -> Option<&'static str> {
    ABSENT.iter().find(|(beginning, _)| method.starts_with(beginning)).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::{ABSENT, reason};

    #[test]
    fn what_a_reader_is_told_to_call_is_there() {
        let is_method = |word: &&str| word.contains('_') && !word.starts_with("io_");
        for (_, why) in ABSENT {
            let words = why.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            for named in words.filter(is_method) {
                assert!(table().any(|method| method.name == named), "{named}, in {why:?}");
            }
        }
    }

    #[test]
    fn what_is_there_is_not_said_to_be_absent() {
        let wrong: Vec<&str> =
            table().map(|method| method.name).filter(|name| reason(name).is_some()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn no_method_is_there_twice() {
        let mut names: Vec<&str> = table().map(|method| method.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
