//! iSCSI (RFC 7143), both ends, without I/O.
