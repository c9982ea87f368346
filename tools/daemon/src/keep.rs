//! The node's configuration file, written again after each call that changed it (`gemeld --write-back`).
//!
//! Owner: the node, under its lock. Invariant: the file holds one whole configuration at any moment; a crash leaves the old one
//! or the new one.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
    written: Option<Value>,
    error: Option<String>,
}

impl Keeper {
    /// Keeps `current` in a file, which holds something else until the first change.
    pub fn new(path: &Path, current: Value) -> Self {
        Self { path: path.to_owned(), written: Some(current), error: None }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the file is not up to date, if it is not.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Writes the configuration if it is another one. What cannot be written is tried again after the next call.
    pub fn keep(&mut self, config: Value) {
        if self.written.as_ref() == Some(&config) {
            return;
        }
        match write(&self.path, &config) {
            Ok(()) => (self.written, self.error) = (Some(config), None),
            Err(error) => {
                let what = format!("the configuration cannot be written to {}: {error}", self.path.display());
                tracing::error!("{what}");
                (self.written, self.error) = (None, Some(what));
            }
        }
    }
}

fn write(path: &Path, config: &Value) -> io::Result<()> {
    rpc::private::replace(path, &(serde_json::to_string_pretty(config)? + "\n"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_replaces_the_file_and_a_failure_is_told_and_mended() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.json");
        let mut keeper = Keeper::new(&path, json!(1));
        keeper.keep(json!(1));
        assert!(!path.exists(), "nothing has changed");
        keeper.keep(json!(2));
        assert_eq!(fs::read_to_string(&path).expect("written"), "2\n");
        let mut lost = Keeper::new(&folder.path().join("absent/node.json"), json!(1));
        lost.keep(json!(2));
        assert!(lost.error().is_some_and(|error| error.contains("absent/node.json")), "{:?}", lost.error());
        fs::create_dir(folder.path().join("absent")).expect("made");
        lost.keep(json!(2));
        assert_eq!(lost.error(), None);
    }
}
