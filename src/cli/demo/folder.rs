//! A folder of this process's own that is gone when the demo ends.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;

/// Removed with all that is in it when this is dropped.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Creates it among the system's temporary files, readable by this user only.
    pub(super) fn create() -> io::Result<Self> {
        let mut random = [0; 8];
        rand::fill(&mut random).map_err(|_unspecified| io::Error::other("no random numbers"))?;
        let name = format!("portcullis-demo-{:016x}", u64::from_be_bytes(random));
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed stays behind, where the system clears temporary files away.
        drop(fs::remove_dir_all(&self.0));
    }
}
