//! Where a leg's bytes come from: its node, or its device.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mirror::range::ByteRange;
use rpc::{Client, ClientError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Failure;

/// Bytes that a checksum is of,
pub(super) const BLOCK: u64 = 4096;
/// bytes of a checksum that count, as nodes give them,
const SUM: usize = 16;
/// and bytes of one call.
const PIECE: u64 = 4 << 20;

/// See the module.
pub(super) enum Source {
    /// A node that runs.
    Node { client: Client, name: String, size: u64 },
    /// A device or a file.
    Device { path: PathBuf, file: File, size: u64 },
}

impl Source {
    pub(super) fn node(socket: &Path, name: &str) -> Result<Self, Failure> {
        let client = Client::connect(socket)?;
        let mut source = Self::Node { client, name: name.to_owned(), size: 0 };
        let answer = source.call("mirror_read_leg", json!({"name": name, "offset": 0, "length": BLOCK}))?;
        if let Self::Node { size, .. } = &mut source {
            *size = answer["leg_size"].as_u64().ok_or_else(|| misunderstood("leg_size"))?;
        }
        Ok(source)
    }

    pub(super) fn device(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::Read(path.to_owned(), error);
        let mut file = File::open(path).map_err(failed)?;
        // A block device has no length but this.
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self::Device { path: path.to_owned(), file, size })
    }

    /// Who it is, in words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Node { .. } => "asked over its control socket".to_owned(),
            Self::Device { path, .. } => path.display().to_string(),
        }
    }

    /// Bytes of the leg.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Node { size, .. } | Self::Device { size, .. } => *size,
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        match self {
            Self::Node { client, .. } => Ok(client.call(method, Some(params))?),
            Self::Device { .. } => unreachable!("devices are read"),
        }
    }

    /// Bytes of the leg.
    pub(super) fn read(&mut self, range: ByteRange) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let mut at = range.start;
        while at < range.end() {
            let len = PIECE.min(range.end() - at);
            bytes.append(&mut self.read_piece(at, len)?);
            at += len;
        }
        Ok(bytes)
    }

    fn read_piece(&mut self, at: u64, len: u64) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Device { path, file, .. } => {
                let mut bytes = vec![0; usize::try_from(len).expect("a piece is short")];
                let read = file.read_exact_at(&mut bytes, at);
                read.map_err(|error| Failure::Read(path.clone(), error))?;
                Ok(bytes)
            }
            Self::Node { name, .. } => {
                let params = json!({"name": name, "offset": at, "length": len});
                let answer = self.call("mirror_read_leg", params)?;
                let data = answer["data"].as_str().and_then(|data| STANDARD.decode(data).ok());
                data.filter(|data| data.len() as u64 == len).ok_or_else(|| misunderstood("data"))
            }
        }
    }

    /// A checksum of each block of a stretch of the data area, which begins at `data_offset` of the leg.
    pub(super) fn checksums(&mut self, data_offset: u64, range: ByteRange) -> Result<Vec<String>, Failure> {
        match self {
            Self::Device { .. } => {
                let bytes = self.read(ByteRange::new(data_offset + range.start, range.len))?;
                let block = usize::try_from(BLOCK).expect("small");
                Ok(bytes.chunks(block).map(checksum).collect())
            }
            Self::Node { name, .. } => {
                let params =
                    json!({"name": name, "offset": range.start, "length": range.len, "block_size": BLOCK});
                let answer = self.call("mirror_get_leg_checksums", params)?;
                let sums = answer["checksums"].as_array().ok_or_else(|| misunderstood("checksums"))?;
                Ok(sums.iter().filter_map(|sum| sum.as_str().map(str::to_owned)).collect())
            }
        }
    }
}

fn checksum(block: &[u8]) -> String {
    Sha256::digest(block)[..SUM].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn misunderstood(what: &str) -> Failure {
    ClientError::Answer(format!("no {what} in it: is the node of another version?")).into()
}
