//! The basic header segment: a view with one named accessor for each field (RFC 7143 section 11).

/// Bytes of a basic header segment.
pub const BHS_LEN: usize = 48;

/// "No tag": an initiator or target task tag that names nothing.
pub const NO_TAG: u32 = 0xffff_ffff;

/// Operation codes.
pub mod opcode {
    /// NOP-Out.
    pub const NOP_OUT: u8 = 0x00;
    /// SCSI Command.
    pub const SCSI_COMMAND: u8 = 0x01;
    /// Task Management Function Request.
    pub const TASK_MANAGEMENT: u8 = 0x02;
    /// Login Request.
    pub const LOGIN: u8 = 0x03;
    /// Text Request.
    pub const TEXT: u8 = 0x04;
    /// SCSI Data-Out.
    pub const DATA_OUT: u8 = 0x05;
    /// Logout Request.
    pub const LOGOUT: u8 = 0x06;
    /// SNACK Request.
    pub const SNACK: u8 = 0x10;
    /// NOP-In.
    pub const NOP_IN: u8 = 0x20;
    /// SCSI Response.
    pub const SCSI_RESPONSE: u8 = 0x21;
    /// Task Management Function Response.
    pub const TASK_MANAGEMENT_RESPONSE: u8 = 0x22;
    /// Login Response.
    pub const LOGIN_RESPONSE: u8 = 0x23;
    /// Text Response.
    pub const TEXT_RESPONSE: u8 = 0x24;
    /// SCSI Data-In.
    pub const DATA_IN: u8 = 0x25;
    /// Logout Response.
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3f;
}

/// Flag bits of byte 1.
pub mod flag {
    /// F: final PDU of a sequence; always set where there is no sequence.
    pub const FINAL: u8 = 0x80;
    /// T: transit to the next login stage.
    pub const TRANSIT: u8 = 0x80;
    /// C: text continues in the next PDU.
    pub const CONTINUE: u8 = 0x40;
    /// R: the command reads.
    pub const READ: u8 = 0x40;
    /// W: the command writes.
    pub const WRITE: u8 = 0x20;
    /// O: residual overflow.
    pub const OVERFLOW: u8 = 0x04;
    /// U: residual underflow.
    pub const UNDERFLOW: u8 = 0x02;
    /// A: the target asks to be told which Data-In PDUs have arrived.
    pub const ACKNOWLEDGE: u8 = 0x40;
    /// S: a Data-In carries the status.
    pub const STATUS: u8 = 0x01;
    /// I: immediate delivery, in byte 0.
    pub const IMMEDIATE: u8 = 0x40;
}

/// Reject reasons (RFC 7143 section 11.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RejectReason {
    /// Data digest error.
    DataDigest = 0x02,
    /// SNACK not possible here.
    Snack = 0x03,
    /// Protocol error.
    Protocol = 0x04,
    /// Command not supported.
    NotSupported = 0x05,
    /// Too many immediate commands.
    ImmediateCommand = 0x06,
    /// The Initiator Task Tag is that of an open task.
    TaskInProgress = 0x07,
    /// A field is invalid.
    InvalidField = 0x09,
    /// Long operation: out of resources.
    OutOfResources = 0x0a,
}

/// A basic header segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub [u8; BHS_LEN]);

impl Default for Header {
    fn default() -> Self {
        Self([0; BHS_LEN])
    }
}

macro_rules! u32_fields {
    ($($(#[$doc:meta])* $get:ident, $set:ident, $at:expr;)*) => {
        $(
            $(#[$doc])*
            pub fn $get(&self) -> u32 {
                self.u32_at($at)
            }

            /// Sets the field of the getter of the same name.
            #[must_use]
            pub fn $set(self, value: u32) -> Self {
                self.with_u32($at, value)
            }
        )*
    };
}

impl Header {
    /// A header with an operation code and byte 1.
    pub fn new(opcode: u8, flags: u8) -> Self {
        let mut header = Self::default();
        header.0[0] = opcode;
        header.0[1] = flags;
        header
    }

    /// The operation code.
    pub fn opcode(&self) -> u8 {
        self.0[0] & 0x3f
    }

    /// I: the command is not numbered.
    pub fn is_immediate(&self) -> bool {
        self.0[0] & flag::IMMEDIATE != 0
    }

    /// Marks the command immediate.
    #[must_use]
    pub fn with_immediate(mut self) -> Self {
        self.0[0] |= flag::IMMEDIATE;
        self
    }

    /// Byte 1.
    pub fn flags(&self) -> u8 {
        self.0[1]
    }

    /// True when all of `bits` are set in byte 1.
    pub fn has(&self, bits: u8) -> bool {
        self.0[1] & bits == bits
    }

    /// Sets bits of byte 1.
    #[must_use]
    pub fn with_flags(mut self, bits: u8) -> Self {
        self.0[1] |= bits;
        self
    }

    /// Byte `at`.
    pub fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }

    /// Sets byte `at`.
    #[must_use]
    pub fn with_byte(mut self, at: usize, value: u8) -> Self {
        self.0[at] = value;
        self
    }

    /// Bytes of additional header segments, from `TotalAHSLength`.
    pub fn ahs_len(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    /// `DataSegmentLength`, without padding.
    pub fn data_len(&self) -> usize {
        usize::from(self.0[5]) << 16 | usize::from(self.0[6]) << 8 | usize::from(self.0[7])
    }

    /// Sets `DataSegmentLength`; only the low 24 bits count.
    #[must_use]
    pub fn with_data_len(mut self, len: usize) -> Self {
        self.0[5..8].copy_from_slice(&[(len >> 16) as u8, (len >> 8) as u8, len as u8]);
        self
    }

    /// The logical unit number, as eight raw bytes.
    pub fn lun(&self) -> u64 {
        u64::from_be_bytes(self.0[8..16].try_into().expect("eight bytes"))
    }

    /// Sets the logical unit number.
    #[must_use]
    pub fn with_lun(mut self, lun: u64) -> Self {
        self.0[8..16].copy_from_slice(&lun.to_be_bytes());
        self
    }

    /// ISID of a login PDU.
    pub fn isid(&self) -> [u8; 6] {
        self.0[8..14].try_into().expect("six bytes")
    }

    /// Sets the ISID.
    #[must_use]
    pub fn with_isid(mut self, isid: [u8; 6]) -> Self {
        self.0[8..14].copy_from_slice(&isid);
        self
    }

    /// The 16-bit field at `at`.
    pub fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    /// Sets the 16-bit field at `at`.
    #[must_use]
    pub fn with_u16(mut self, at: usize, value: u16) -> Self {
        self.0[at..at + 2].copy_from_slice(&value.to_be_bytes());
        self
    }

    fn u32_at(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn with_u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    u32_fields! {
        /// Initiator Task Tag.
        itt, with_itt, 16;
        /// Target Transfer Tag; also the Referenced Task Tag of a task management request.
        ttt, with_ttt, 20;
        /// Expected Data Transfer Length of a SCSI command.
        edtl, with_edtl, 20;
        /// `CmdSN`, initiator to target.
        cmd_sn, with_cmd_sn, 24;
        /// `StatSN`, target to initiator.
        stat_sn, with_stat_sn, 24;
        /// `ExpStatSN`, initiator to target.
        exp_stat_sn, with_exp_stat_sn, 28;
        /// `ExpCmdSN`, target to initiator.
        exp_cmd_sn, with_exp_cmd_sn, 28;
        /// `MaxCmdSN`, target to initiator.
        max_cmd_sn, with_max_cmd_sn, 32;
        /// `DataSN` or `R2TSN`.
        data_sn, with_data_sn, 36;
        /// Buffer Offset.
        buffer_offset, with_buffer_offset, 40;
        /// Desired Data Transfer Length of an R2T, or Residual Count of a response.
        residual, with_residual, 44;
    }

    /// The command descriptor block of a SCSI command.
    pub fn cdb(&self) -> [u8; 16] {
        self.0[32..48].try_into().expect("sixteen bytes")
    }

    /// Sets the command descriptor block.
    #[must_use]
    pub fn with_cdb(mut self, cdb: [u8; 16]) -> Self {
        self.0[32..48].copy_from_slice(&cdb);
        self
    }
}
