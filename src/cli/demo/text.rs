//! The text that the demo prints for its visitor: the addresses, and commands to paste into another terminal.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::script::{Addresses, DemoFiles, DemoProvider};

/// The values that appear in the text.
#[derive(Debug)]
pub(super) struct DemoText<'a> {
    pub(super) addresses: &'a Addresses,
    pub(super) files: &'a DemoFiles,
    pub(super) admin_secret: &'a str,
    /// How to call this program in a shell.
    pub(super) program: &'a str,
}

impl DemoText<'_> {
    /// The demo with the gate's own authority.
    pub(super) fn with_authority(&self, password: &str) -> String {
        let Addresses { gate, admin, .. } = self.addresses;
        let (trust, program) = (self.curl(), self.program);
        let (token, client, into) =
            (word(&self.files.token, "@"), word(&self.files.client, "@"), word(&self.files.token, ""));
        let beginning = self.beginning(&self.sample());
        let (export, ending) = (self.export(), self.ending());
        format!(
            "\
{beginning}
The user ada holds the roles case-reader and case-writer. Her application \"Invoice robot\" has a credential with the
role case-reader and the scope read:deals, and a token already.

The console, in a browser: as ada, or with the admin token below
  http://{admin}/console/   user: ada   password: {password}

200: the token carries the scope that the route asks for
  {trust} -i -H {token} https://{gate}/deals/7

401: no token
  {trust} -i https://{gate}/deals/7

403: the token lacks the scope of this route
  {trust} -i -H {token} https://{gate}/users

What operators do: take the role case-reader away from ada
  {export}
  {program} user roles ada --role case-writer

401: the role of the token's holder has changed
  {trust} -i -H {token} https://{gate}/deals/7

400: the application gets no new token either, because it has no role left
  {trust} -i -d {client} https://{gate}/oauth/token

Give the role back, and keep a new token for the lines above
  {program} user roles ada --role case-reader --role case-writer
  NEW=$({trust} -sSf -d {client} https://{gate}/oauth/token) && echo \"$NEW\" | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/Authorization: Bearer \\1/' > {into}

200: the new token
  {trust} -i -H {token} https://{gate}/deals/7

Which credentials there are
  {program} credential list

{ending}"
        )
    }

    /// The demo with the visitor's own identity provider.
    pub(super) fn with_provider(&self, provider: &DemoProvider) -> String {
        let Addresses { gate, admin, .. } = self.addresses;
        let (trust, program, issuer, audience) =
            (self.curl(), self.program, &provider.issuer, &provider.audience);
        let (token, into) = (word(&self.files.token, "@"), word(&self.files.token, ""));
        let configuration = word(&self.files.configuration, "");
        let beginning = self.beginning(provider.upstream.as_deref().unwrap_or(&self.sample()));
        let (export, ending) = (self.export(), self.ending());
        format!(
            "\
{beginning}
Tokens of {issuer} for the audience {audience} pass, to every path of the upstream.

The console, in a browser: with the admin token below
  http://{admin}/console/

401: no token
  {trust} -i https://{gate}/

Paste a token of yours after this line; it is saved for the lines below
  read -r TOKEN && echo \"Authorization: Bearer $TOKEN\" > {into}

200: a good token
  {trust} -i -H {token} https://{gate}/

Why a token passes or not, check by check
  sed 's/.*Bearer //' {into} | {program} explain --config {configuration} -

What operators do: see the tokens in use, and end all tokens of a user (SUBJECT: the claim sub of your token)
  {export}
  {program} session list
  {program} event subject-revoked --subject SUBJECT

401: the token was revoked
  {trust} -i -H {token} https://{gate}/

{ending}"
        )
    }

    fn beginning(&self, upstream: &str) -> String {
        let Addresses { gate, admin, telemetry, .. } = self.addresses;
        let configuration = self.files.configuration.display();
        format!(
            "\
Portcullis demo: everything is on this machine, and gone after Ctrl-C. Paste the lines into another terminal.

  gate           https://{gate}
  upstream       {upstream}
  admin          http://{admin}
  telemetry      http://{telemetry}
  configuration  {configuration}
"
        )
    }

    fn sample(&self) -> String {
        format!("http://{}", self.addresses.upstream)
    }

    fn ending(&self) -> String {
        let telemetry = self.addresses.telemetry;
        format!(
            "\
What the gate has counted
  curl http://{telemetry}/metrics

The gate logs your requests here:

"
        )
    }

    fn curl(&self) -> String {
        format!("curl --cacert {}", word(&self.files.authority, ""))
    }

    fn export(&self) -> String {
        let (admin, secret) = (self.addresses.admin, self.admin_secret);
        format!("export PORTCULLIS_ADMIN_URL=http://{admin} PORTCULLIS_ADMIN_TOKEN={secret}")
    }
}

/// How to call this program in a shell: by its name if `path` (the value of PATH) leads to it, otherwise by its path.
pub(super) fn program(executable: &Path, path: Option<&OsStr>) -> String {
    let same = |found: PathBuf| found.canonicalize().ok() == executable.canonicalize().ok();
    let name = executable.file_name().unwrap_or_default();
    let first = path.and_then(|path| {
        let mut places = std::env::split_paths(path).map(|folder| folder.join(name));
        places.find(|place| place.is_file())
    });
    match first {
        Some(found) if same(found.clone()) => word(Path::new(name), ""),
        _ => word(executable, ""),
    }
}

/// `prefix` and the path as one shell word.
fn word(path: &Path, prefix: &str) -> String {
    let text = format!("{prefix}{}", path.display());
    let plain = |c: char| c.is_ascii_alphanumeric() || "@/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (path, expected) in [
            ("/tmp/a-1/ca.pem", "@/tmp/a-1/ca.pem"),
            ("/a b", "'@/a b'"),
            ("/it's", r"'@/it'\''s'"),
            ("/$x", "'@/$x'"),
        ] {
            assert_eq!(word(Path::new(path), "@"), expected);
        }
    }

    #[test]
    fn the_program_has_its_name_only_where_the_path_leads_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("ours"), folder.path().join("other"));
        for place in [&ours, &other] {
            std::fs::create_dir(place).unwrap();
            std::fs::write(place.join("portcullis"), "").unwrap();
        }
        let executable = ours.join("portcullis");
        let whole = executable.to_str().unwrap();
        let path = |folders: &[&PathBuf]| std::env::join_paths(folders).unwrap();
        for (folders, expected) in [
            (path(&[&ours, &other]), "portcullis"),
            (path(&[&other, &ours]), whole),
            (path(&[&folder.path().to_owned(), &ours]), "portcullis"),
            (path(&[]), whole),
        ] {
            assert_eq!(program(&executable, Some(&folders)), expected, "{folders:?}");
        }
        assert_eq!(program(&executable, None), whole);
    }
}
