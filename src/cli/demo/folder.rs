//! A temporary folder that is removed when the demo ends.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;

/// The folder; dropping this removes it with all its content.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Creates it in the system's temporary folder, readable only by this user.
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
        // If removing it fails, the system eventually clears its temporary files.
        drop(fs::remove_dir_all(&self.0));
    }
}
