//! Detects changed files on disk within two seconds.
//!
//! Polls the files instead of using kernel events: renames over the file, swapped symbolic links (Kubernetes mounts), files
//! that are deleted and written again, and network file systems all look the same this way.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the files are checked.
const INTERVAL: Duration = Duration::from_millis(400);

/// A change is reported once the files have not changed for one interval, so that half-written files are not
/// read, but after this many checks in any case: two seconds are promised.
const PATIENCE: u32 = 3;

/// Distinguishes one content of a file from the next without reading it. The change time reveals changes that
/// keep the modification time, such as `cp -p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    /// Follows symbolic links; `None` if the file does not exist.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Files, and their state just before they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchedFiles(BTreeMap<PathBuf, Option<Fingerprint>>);

impl WatchedFiles {
    /// Adds a file with its current state, unless it was added before. Call this before reading the file: a
    /// change in between is then noticed.
    pub fn note(&mut self, path: &Path) {
        if !self.0.contains_key(path) {
            self.0.insert(path.to_path_buf(), Fingerprint::of(path));
        }
    }

    /// The files' paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// The same files with their current state.
    fn again(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), Fingerprint::of(path))).collect())
    }
}

/// Watches files for changes.
#[derive(Debug)]
pub struct Watch {
    files: WatchedFiles,
}

impl Watch {
    /// Watches `files` for differences from their recorded state.
    #[must_use]
    pub fn new(files: WatchedFiles) -> Self {
        Self { files }
    }

    /// Watches these files from now on; changes since their state was recorded count.
    pub fn follow(&mut self, files: WatchedFiles) {
        self.files = files;
    }

    /// Waits until a file has changed, appeared or disappeared. Each change is reported once. Cancel-safe.
    pub async fn changed(&mut self) {
        let (mut seen, mut looks) = (self.files.clone(), 0);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = look(&seen).await;
            let still = now == seen;
            seen = now;
            if seen == self.files {
                looks = 0;
                continue;
            }
            looks += 1;
            if still || looks >= PATIENCE {
                self.files = seen;
                return;
            }
        }
    }
}

/// Runs on a blocking thread, because a network file system may be slow.
async fn look(files: &WatchedFiles) -> WatchedFiles {
    let files = files.clone();
    let known = files.clone();
    // The task can only fail when the runtime ends, and then nobody waits for the result.
    tokio::task::spawn_blocking(move || files.again()).await.unwrap_or(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const PROMISE: Duration = Duration::from_secs(2);

    async fn notices(watch: &mut Watch) -> bool {
        tokio::time::timeout(PROMISE, watch.changed()).await.is_ok()
    }

    fn watching(path: &Path) -> Watch {
        let mut files = WatchedFiles::default();
        files.note(path);
        Watch::new(files)
    }

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(test);
    }

    #[test]
    fn every_way_to_replace_a_file_is_noticed() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("file");
            let write = |text: &str| fs::write(&file, text).unwrap();
            let rename = |text: &str| {
                fs::write(folder.path().join("new"), text).unwrap();
                fs::rename(folder.path().join("new"), &file).unwrap();
            };
            write("one");
            let mut watch = watching(&file);
            write("two");
            assert!(notices(&mut watch).await, "written in place, with the same length");
            rename("six");
            assert!(notices(&mut watch).await, "renamed over");
            fs::remove_file(&file).unwrap();
            assert!(notices(&mut watch).await, "deleted");
            write("ten");
            assert!(notices(&mut watch).await, "created again");
            fs::remove_file(&file).unwrap();
            write("ten");
            assert!(notices(&mut watch).await, "deleted and created at once");
            let modified = fs::metadata(&file).unwrap().modified().unwrap();
            write("two");
            fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
            assert!(notices(&mut watch).await, "with the modification time put back");
        });
    }

    #[test]
    fn a_swapped_folder_link_is_noticed() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            for version in ["v1", "v2"] {
                fs::create_dir(at(version)).unwrap();
                fs::write(at(version).join("tls.crt"), "same").unwrap();
            }
            symlink("v1", at("..data")).unwrap();
            symlink("..data/tls.crt", at("tls.crt")).unwrap();
            let mut watch = watching(&at("tls.crt"));
            symlink("v2", at("..new")).unwrap();
            fs::rename(at("..new"), at("..data")).unwrap();
            assert!(notices(&mut watch).await);
        });
    }

    #[test]
    fn what_changed_between_reading_and_watching_is_noticed_and_only_once() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("file");
            let mut files = WatchedFiles::default();
            files.note(&file);
            fs::write(&file, "late").unwrap();
            let mut watch = Watch::new(files);
            assert!(notices(&mut watch).await);
            assert!(!notices(&mut watch).await, "nothing changed since");
        });
    }

    #[test]
    fn a_file_that_never_keeps_still_is_reported_in_time() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("file");
            let mut watch = watching(&file);
            let writer = async {
                loop {
                    fs::OpenOptions::new().create(true).append(true).open(&file).unwrap().set_len(0).unwrap();
                    fs::write(&file, "again").unwrap();
                    testkit::let_pass_async(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                noticed = notices(&mut watch) => assert!(noticed),
                () = writer => {}
            }
        });
    }
}
