//! Problems in a file are reported with line, key and reason.

use super::{BASE, Folder, base_with, line_of_here};

/// One mistake: what is replaced in the base, the key at fault, and part of the message.
pub(super) struct Row {
    pub(super) replacements: Vec<(&'static str, String)>,
    pub(super) key: &'static str,
    pub(super) message: &'static str,
}

/// The blocks of `bad.txt`.
pub(super) fn rows() -> Vec<Row> {
    let block = |block: &'static str| {
        let (replacements, expected) =
            block.split_once("\n>>> ").unwrap_or_else(|| panic!("no >>> in {block}"));
        let (key, message) = expected.trim_end().split_once(": ").unwrap();
        assert!(!message.is_empty(), "{block}");
        let replacements = replacements.split("--- ").skip(1).map(|replacement| {
            let (slot, text) = replacement.split_once('\n').unwrap_or((replacement, ""));
            (slot, text.trim_end().to_owned())
        });
        Row { replacements: replacements.collect(), key, message }
    };
    let blocks = include_str!("bad.txt").split("\n\n").map(str::trim_start);
    blocks.filter(|block| block.contains("--- ") && !block.starts_with('#')).map(block).collect()
}

#[test]
fn each_mistake_is_the_only_problem_and_has_its_line_and_key() {
    let (folder, rows) = (Folder::new(), rows());
    assert!(rows.len() > 190, "only {} blocks were found", rows.len());
    let failures: Vec<_> = rows.iter().filter_map(|row| failure(&folder, row)).collect();
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
}

/// The actual report, if it is not the expected one.
fn failure(folder: &Folder, row: &Row) -> Option<String> {
    let replacements: Vec<_> = row.replacements.iter().map(|(slot, text)| (*slot, text.as_str())).collect();
    let text = base_with(&replacements);
    let start = format!("{}:{}: {}: ", folder.config().display(), line_of_here(&text), row.key);
    let found = match folder.load(&text) {
        Ok(_) => return Some(format!("{replacements:?}: nothing was found")),
        Err(problems) => problems.list().to_vec(),
    };
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    let expected = |shown: &String| {
        let message = shown.strip_prefix(&start);
        message.is_some_and(|message| message.contains(row.message) && !message.contains('\n'))
    };
    let good = shown.len() == 1 && shown.iter().all(expected);
    (!good).then(|| format!("{replacements:?}: {shown:#?}"))
}

#[test]
fn everything_is_reported_at_once_in_the_order_of_the_file() {
    let folder = Folder::new();
    let text = base_with(&[
        ("server", "workers = \"two\"\ndrain_timeout = 30"),
        ("limits", "conections = 5"),
        ("issuer.audiences", "audiences = 7"),
        ("route.upstream", "upstream = \"ap1\""),
        ("route", "mode = \"off\"\nscopes = [1, \"ok\", \"\"]"),
        ("admin", "[[admin.tokens]]\nname = \"ops\""),
    ]);
    let found = folder.problems(&text);
    let keys: Vec<_> = found.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "server.workers",
            "server.drain_timeout",
            "server.limits.conections",
            "issuers[0].audiences",
            "routes[0].upstream",
            "routes[0].mode",
            "routes[0].scopes[0]",
            "routes[0].scopes[2]",
            "admin.tokens[0].secret",
            "admin.tokens[0].permissions",
        ]
    );
    assert!(found.is_sorted_by_key(|problem| problem.line));
}

#[test]
fn broken_toml_is_reported_with_its_lines_and_nothing_else() {
    let folder = Folder::new();
    for (broken, message) in [
        ("listen = # here", "quoted"),
        ("listen = [\"a\" # here", ""),
        ("allow_plaintext = false # here", "duplicate key"),
        ("drain_timeout = 30s # here", ""),
        ("x = \"\\q\" # here", ""),
        ("[server] # here", "duplicate key"),
        ("[[server]] # here", "duplicate key"),
    ] {
        let text = base_with(&[("server", broken)]);
        let found = folder.problems(&text);
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(
            found.iter().any(|problem| problem.line == Some(line_of_here(&text))),
            "{broken}\n{shown:#?}"
        );
        assert!(found.iter().all(|problem| problem.key.is_empty()), "{broken}\n{shown:#?}");
        assert!(shown.concat().contains(message), "{broken}\n{shown:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem_without_a_line() {
    let folder = Folder::new();
    let none = portcullis::config::load(&folder.path("config/none.toml")).unwrap_err();
    assert_eq!(none.list().len(), 1);
    assert_eq!(none.list()[0].line, None);
    assert!(none.to_string().contains("config/none.toml: cannot be read: No such file"), "{none}");
    assert_eq!(none.files().paths().collect::<Vec<_>>(), [folder.path("config/none.toml")]);
    let directory = portcullis::config::load(&folder.path("config")).unwrap_err();
    assert!(directory.to_string().contains("cannot be read"), "{directory}");
    std::fs::write(folder.path("config/binary.toml"), [0xff, 0xfe, 0x00]).unwrap();
    let binary = portcullis::config::load(&folder.path("config/binary.toml")).unwrap_err();
    assert!(binary.to_string().contains("cannot be read"), "{binary}");
}

#[test]
fn no_message_repeats_a_secret() {
    const SECRET: &str = "hunter2hunter2";
    let folder = Folder::new();
    for (old, new) in [
        ("admin", "[[admin.tokens]]\nname = \"a\"\nsecret = \"hunter2hunter2 \"\npermissions = [\"config\"]"),
        ("admin", "[[admin.tokens]]\nname = \"a\"\nsecret = \"hunter2hunter2\npermissions = [\"config\"]"),
        (
            "admin",
            "[[admin.tokens]]\nname = \"a\"\nsecret = [\"hunter2hunter2\"]\npermissions = [\"config\"]",
        ),
        ("issuer.keys", "secret = \"hunter2hunter2\"\nalgorithms = [\"HS256\"]"),
        ("upstream.url", "url = \"http://a:hunter2hunter2@b\""),
        ("state", "url = \"mysql://a:hunter2hunter2@b\""),
    ] {
        let text = base_with(&[(old, new)]);
        assert!(text.contains(SECRET));
        for problem in folder.problems(&text) {
            assert!(!problem.to_string().contains(SECRET), "{problem}");
        }
    }
    assert!(!BASE.contains(SECRET));
}

#[test]
fn one_mistake_does_not_hide_another_of_the_same_table() {
    let folder = Folder::new();
    let keys = |replacements: &[(&str, &str)]| -> Vec<String> {
        folder.problems(&base_with(replacements)).into_iter().map(|problem| problem.key).collect()
    };
    // The path and the tie are judged by the router, the rest while the table is read.
    assert_eq!(
        keys(&[
            ("route.path", "path = \"deals\""),
            ("route.upstream", "upstream = \"b\""),
            ("route", "mode = 1")
        ]),
        ["routes[0].path", "routes[0].upstream", "routes[0].mode"]
    );
    let tls = "[server.tls]\ncertificate = \"../certs/server.pem\"\nprivate_key = \"../certs/admin.key\"\n\
               client_ca = \"../certs/garbage.pem\"\nmin_version = \"1\"";
    assert_eq!(
        keys(&[("server", tls)]),
        ["server.tls.certificate", "server.tls.client_ca", "server.tls.min_version"]
    );
    let issuer = "jwks_file = \"../certs/no-keys.json\"\nleeway = 1\nca = \"../certs/garbage.pem\"";
    assert_eq!(
        keys(&[("issuer.keys", issuer)]),
        ["issuers[0].jwks_file", "issuers[0].leeway", "issuers[0].ca"]
    );
}

#[test]
fn one_mistake_is_not_reported_as_several() {
    let folder = Folder::new();
    for replacements in [
        // A name that is missing is not also unknown to the routes that use it.
        &[("upstream.name", "")][..],
        // Issuers that cannot be read are not also absent.
        &[("issuer.table", "[issuers]")],
        // A host that is dropped does not make a tie of two routes.
        &[("route", "hosts = [\"a:1\"]\n[[routes]]\npath = \"/deals/{*rest}\"\nupstream = \"api\"")],
        &[("issuer.name", "issuer = 5"), ("issuer.keys", "discovery = true")],
        &[("issuer.keys", "jwks_file = \"../certs/jwks.json\"\nalgorithms = [\"ES265\"]")],
    ] {
        let found = folder.problems(&base_with(replacements));
        assert_eq!(found.len(), 1, "{found:#?}");
    }
}
