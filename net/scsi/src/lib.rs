//! SCSI: CDBs, sense, inquiry and mode pages, without I/O.
