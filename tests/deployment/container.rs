//! The Dockerfile: by hadolint, and what its last stage holds, run with the printed mounts in a bare root directory.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use testkit::documents::{block, commands};
use testkit::gate::{Log, binary, field, message, run_to_end};
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::tokens::Issuer;
use testkit::tools::{Running, run};
use testkit::wire::Wire;

use crate::tooling::{file, longest_end, replaced, says, text, write};

/// The user of the image.
const USER: u32 = 65532;
/// The libraries that the base image of the last stage has.
const LIBRARIES: [&str; 10] = [
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "linux-vdso.so.1",
];

/// A root directory with what the last stage of the image holds, and nothing else.
struct Image {
    root: TempDir,
}

impl Image {
    fn new() -> Self {
        let image = Self { root: tempfile::tempdir().unwrap() };
        fs::set_permissions(image.root.path(), Permissions::from_mode(0o755)).unwrap();
        image.copy(binary(), "/usr/local/bin/portcullis");
        for library in libraries() {
            image.copy(&library, library.to_str().unwrap());
        }
        // The public roots, where the base image and Debian have them.
        write(&image.path("/etc/ssl/certs/ca-certificates.crt"), Authority::new().certificate_pem());
        write(&image.path("/etc/passwd"), "nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n");
        image
    }

    /// A path of the image outside of it.
    fn path(&self, inside: &str) -> PathBuf {
        self.root.path().join(inside.trim_start_matches('/'))
    }

    fn copy(&self, from: &Path, inside: &str) {
        fs::create_dir_all(self.path(inside).parent().unwrap()).unwrap();
        fs::copy(from, self.path(inside)).unwrap();
    }

    /// A command in the image, as its user and with its environment.
    fn command(&self, words: &[&str]) -> Command {
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut command = Command::new(if is_root { "/usr/sbin/chroot" } else { "/usr/bin/sudo" });
        if !is_root {
            command.args(["-n", "/usr/sbin/chroot"]);
        }
        command.arg(format!("--userspec={USER}:{USER}")).arg(self.root.path()).args(words);
        let (name, value) = environment();
        command.env_clear().env(name, value).stdin(Stdio::null());
        command
    }
}

/// What the binary needs of the system, by `ldd`.
fn libraries() -> Vec<PathBuf> {
    let printed = run("ldd", &[binary().to_str().unwrap()]);
    let paths = printed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

/// The arguments of an instruction of the Dockerfile, the last one of its kind.
fn instruction(name: &str) -> String {
    let dockerfile = text("Dockerfile").replace("\\\n", " ");
    let mut lines = dockerfile.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    lines.next_back().unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

/// The words of an instruction in its JSON form.
fn words(name: &str) -> Vec<String> {
    let arguments = instruction(name);
    let from = arguments.find('[').unwrap();
    serde_json::from_str(&arguments[from..]).unwrap()
}

fn environment() -> (String, String) {
    let (name, value) =
        instruction("ENV").split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
    assert_eq!(name, "PORTCULLIS_CONFIG");
    (name, value)
}

/// The mounts of the printed `docker run`: what, and where in the container.
fn mounts() -> Vec<(String, String)> {
    let printed = commands(&block("docs/deployment.md", "docker run"));
    let run = printed.iter().find(|line| line.starts_with("docker run")).unwrap();
    let words: Vec<&str> = run.split(' ').collect();
    let mounts = words.windows(2).filter(|pair| pair[0] == "-v").map(|pair| pair[1].trim_end_matches(":ro"));
    let mounts = mounts.map(|mount| mount.split_once(':').unwrap());
    mounts.map(|(from, to)| (from.to_owned(), to.to_owned())).collect()
}

#[test]
fn the_dockerfile_has_no_fault_that_hadolint_finds() {
    says("hadolint", &["--failure-threshold", "style", file("Dockerfile").to_str().unwrap()]);
}

#[test]
fn the_dockerfile_prints_the_same_recipe_as_the_docs() {
    let own = text("Dockerfile").replace("\\\n#", "");
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let own = squeezed(&own);
    for command in commands(&block("docs/deployment.md", "docker run")) {
        assert!(own.contains(&squeezed(&command)), "{command}");
    }
}

#[test]
fn the_image_is_built_with_the_oldest_supported_rust_and_needs_no_library_that_its_base_has_not() {
    let manifest = text("Cargo.toml");
    let rust =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(text("Dockerfile").contains(&format!("FROM rust:{rust}-bookworm AS build")));
    assert!(text("rust-toolchain.toml").contains(&format!("channel = \"{rust}.")));
    for library in libraries() {
        let name = library.file_name().unwrap().to_str().unwrap();
        assert!(LIBRARIES.contains(&name), "{name}");
    }
}

#[test]
fn the_image_serves_with_the_printed_mounts_as_its_own_user() {
    let image = Image::new();
    let (upstream, issuer, authority) = (RawUpstream::start(), Issuer::new(), Authority::new());
    let server = authority.server(&["localhost"]);
    for (from, to) in mounts() {
        let target = image.path(&to);
        fs::create_dir_all(&target).unwrap();
        match from.as_str() {
            "./config/container" => {
                let toml = text("config/container/portcullis.toml");
                assert!(longest_end(&toml) < 45, "--stop-timeout");
                let own = [
                    ("0.0.0.0:8443", "127.0.0.1:0"),
                    ("http://host.docker.internal:3000", &upstream.url()),
                    ("discovery = true", "jwks_file = \"jwks.json\""),
                    ("0.0.0.0:9464", "127.0.0.1:0"),
                ];
                let admin = "\n[admin]\nlisten = \"127.0.0.1:0\"\n";
                write(&target.join("portcullis.toml"), replaced(&toml, &own) + admin);
                write(&target.join("jwks.json"), issuer.jwks().to_string());
            }
            "./certs" => {
                write(&target.join("server.pem"), &server.chain);
                write(&target.join("server.key"), &server.key);
                fs::set_permissions(target.join("server.key"), Permissions::from_mode(0o600)).unwrap();
                chown(target.join("server.key"), Some(USER), Some(USER)).unwrap();
            }
            "portcullis" => chown(&target, Some(USER), Some(USER)).unwrap(),
            other => panic!("{other}"),
        }
    }
    let entry = words("ENTRYPOINT");
    let checked = run_to_end(&mut image.command(&[&entry[0], "check", "--config", &environment().1]));
    assert_eq!(checked.code, 0, "{}", checked.err);

    let mut process = image.command(&[&entry[0], &words("CMD")[0]]);
    let mut process = Running(process.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let log = Log::follow(&mut process.0);
    let public = address(&log, "public");
    let get = |path: &str, token: &str| {
        let config = authority.client_config(&["http/1.1"], None);
        let mut wire = Wire::tls(public, "localhost", config).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        wire.exchange(request).unwrap().status()
    };
    testkit::eventually("the gate serves", || (get("/deals/7", &issuer.good()) == 200).then_some(()));
    assert_eq!(get("/deals/7", "none"), 401);
    let telemetry = format!("http://{}", address(&log, "telemetry"));
    let healthy = words("HEALTHCHECK");
    let probe = |what: &str| {
        run_to_end(&mut image.command(&[&healthy[0], &healthy[1], what, "--telemetry", &telemetry]))
    };
    for what in [&healthy[2], "ready"] {
        let probed = probe(what);
        assert_eq!(probed.code, 0, "{what}: {}", probed.err);
    }
    run("kill", &["-TERM", &process.0.id().to_string()]);
    assert_eq!(process.0.wait().unwrap().code(), Some(0), "{}", log.text());
    assert_eq!(probe(&healthy[2]).code, 1);
}

/// Where a listener was bound to.
fn address(log: &Log, listener: &str) -> SocketAddr {
    let wanted =
        |record: &Value| message(record) == Some("listening") && field(record, "listener") == Some(listener);
    field(&log.wait_for(listener, wanted), "address").unwrap().parse().unwrap()
}
