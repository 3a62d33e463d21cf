//! Passwords of the authority's users: from a line of standard input, a terminal or a call into the
//! file, and nowhere else.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier as _};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

use crate::accounts::Operated;
use crate::authority::stage::Stage;
use testkit::gate::{binary, field, run_to_end};
use testkit::{eventually, within};

/// What the file stores of a user's password.
fn stored(folder: &Path, user: &str) -> Option<String> {
    let file = rusqlite::Connection::open(folder.join("authority.db")).unwrap();
    file.query_row("SELECT password FROM users WHERE id = ?1", [user], |row| row.get(0)).unwrap()
}

/// Whether the file stores this password for a user.
fn keeps(folder: &Path, user: &str, password: &str) -> bool {
    stored(folder, user).is_some_and(|hash| {
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let hash = PasswordHash::new(&hash).unwrap();
        Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
    })
}

impl Operated {
    fn keeps(&self, password: &str) -> bool {
        keeps(self.gate.settings.folder(), "alice", password)
    }

    fn stored(&self) -> Option<String> {
        stored(self.gate.settings.folder(), "alice")
    }

    /// What the list and the single user agree on.
    fn has_password(&self) -> bool {
        let user = self.json(&["user", "show", "alice"]);
        assert_eq!(self.json(&["user", "list"])["items"][0], user);
        user["has_password"].as_bool().unwrap()
    }
}

#[test]
fn a_line_of_standard_input_becomes_the_password_or_is_refused_in_plain_words() {
    let operated = Operated::start("");
    operated.says(&["user", "create", "alice", "--role", "case-reader"]);
    assert!(!operated.has_password());
    let (longest, longer, huge) = ("x".repeat(1_024), "x".repeat(1_025), "x".repeat(1 << 20));
    let set = ["user", "password", "alice", "--stdin"];
    let mut before = operated.stored();
    assert_eq!(before, None);
    for (input, password) in [
        ("correct horse battery staple\n", "correct horse battery staple"),
        ("12345678", "12345678"),
        ("  spaces count  \r\n", "  spaces count  "),
        ("päßwörd 密码 🔑\n", "päßwörd 密码 🔑"),
        ("first line\nsecond line\n", "first line"),
        (&longest, &longest),
    ] {
        let outcome = operated.run_reading(&set, input.as_bytes());
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{input:?}: {outcome:?}");
        assert_eq!(outcome.out, "alice has a new password\n");
        assert!(operated.keeps(password) && operated.has_password(), "{input:?}");
        assert_ne!(operated.stored(), before, "{input:?}");
        before = operated.stored();
    }
    for (input, words) in [
        (&b""[..], "standard input is empty"),
        (b"\n", "the password is shorter than 8 bytes"),
        (b"1234567\n", "the password is shorter than 8 bytes"),
        (longer.as_bytes(), "the password is longer than 1024 bytes"),
        (huge.as_bytes(), "the password is longer than 1024 bytes"),
        (b"\xff12345678\n", "not UTF-8"),
    ] {
        let outcome = operated.run_reading(&set, input);
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{words}: {outcome:?}");
        assert!(outcome.err.contains(words), "{words}: {outcome:?}");
        assert_eq!(operated.stored(), before, "{words}");
    }
    let outcome = operated.run_reading(&["user", "password", "bob", "--stdin"], b"correct horse\n");
    assert!(outcome.code == 1 && outcome.err.contains("there is no such user"), "{outcome:?}");

    let says = operated.says(&["user", "password", "alice", "--remove"]);
    assert_eq!(says, "alice has no password and cannot sign in\n");
    assert!(operated.stored().is_none() && !operated.has_password());
    assert_eq!(operated.json(&["user", "password", "alice", "--remove"]), Value::Null);
}

/// A terminal with a user, in which a command runs.
struct Terminal {
    person: File,
    shown: Arc<Mutex<String>>,
    command: Child,
}

impl Terminal {
    fn start(arguments: &[String]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let person = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let side = File::from(ioctl_tiocgptpeer(&person, flags).unwrap());
        let command = Command::new("setsid")
            .arg("--ctty")
            .arg(binary())
            .args(arguments)
            .stdin(side)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let (person, shown) = (File::from(person), Arc::new(Mutex::new(String::new())));
        let (mut reader, text) = (person.try_clone().unwrap(), Arc::clone(&shown));
        // Ends with an error when the command has left the terminal.
        thread::spawn(move || {
            let mut bytes = [0; 1_024];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { person, shown, command: command.unwrap() }
    }

    /// Waits for a question, and until input is no longer echoed, then types the response.
    fn answer(&mut self, question: &str, answer: &str) {
        eventually("the question is asked without echo", || {
            let is_hidden = !tcgetattr(&self.person).unwrap().local_modes.contains(LocalModes::ECHO);
            (self.shown.lock().unwrap().contains(question) && is_hidden).then_some(())
        });
        self.person.write_all(answer.as_bytes()).unwrap();
    }

    /// The exit code of the command, its output, and what the terminal showed.
    fn end(mut self) -> (i32, String, String) {
        let status = within(testkit::PATIENCE, "the command ends", || self.command.try_wait().unwrap());
        let (mut out, mut err) = (String::new(), String::new());
        self.command.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.command.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let shown = self.shown.lock().unwrap().clone();
        (status.code().unwrap_or(-1), out + &err, shown)
    }
}

#[test]
fn a_terminal_asks_twice_and_shows_nothing_of_the_password() {
    let operated = Operated::start("");
    operated.says(&["user", "create", "alice"]);
    let set = operated.with_place(&["user", "password", "alice"]);
    let (first, second) = ("New password of alice: ", "Repeat the password: ");

    let mut terminal = Terminal::start(&set);
    terminal.answer(first, "correct horse\n");
    terminal.answer(second, "correct horse\n");
    let (code, says, shown) = terminal.end();
    assert_eq!((code, says.as_str()), (0, "alice has a new password\n"));
    assert!(shown.contains(first) && shown.contains(second) && !shown.contains("horse"), "{shown:?}");
    assert!(operated.keeps("correct horse"));

    let mut terminal = Terminal::start(&set);
    terminal.answer(first, "another password\n");
    terminal.answer(second, "another passwort\n");
    let (code, says, shown) = terminal.end();
    assert_eq!((code, says.as_str()), (1, "the two passwords differ; nothing was changed\n"));
    assert!(!shown.contains("another"), "{shown:?}");

    let mut terminal = Terminal::start(&set);
    terminal.answer(first, "1234567\n");
    let (code, says, shown) = terminal.end();
    assert_eq!((code, says.as_str()), (1, "the password is shorter than 8 bytes\n"));
    assert!(!shown.contains(second), "it is not asked again: {shown:?}");
    assert!(operated.keeps("correct horse"));

    let (code, says, shown) = Terminal::start(&operated.with_place(&["user", "password", "bob"])).end();
    assert!(code == 1 && says.contains("there is no such user"), "{says}");
    assert_eq!(shown, "", "nobody is asked for the password of nobody");
}

#[test]
fn without_a_terminal_the_command_says_what_to_do() {
    let operated = Operated::start("");
    operated.says(&["user", "create", "alice"]);
    let set = operated.with_place(&["user", "password", "alice"]);
    let outcome =
        run_to_end(Command::new("setsid").arg("--wait").arg(binary()).args(set).stdin(Stdio::null()));
    assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{outcome:?}");
    assert!(outcome.err.contains("no terminal") && outcome.err.contains("--stdin"), "{outcome:?}");
    assert_eq!(operated.stored(), None);
}

#[test]
fn a_file_of_the_version_before_gets_passwords_which_outlive_roles_and_crashes() {
    let mut stage = Stage::start();
    let app = stage.robot();
    let token = stage.token(&app);
    stage.gate.signal("TERM");
    stage.gate.wait_for_exit(testkit::PATIENCE);
    let folder = stage.gate.settings.folder().to_owned();
    let file = rusqlite::Connection::open(folder.join("authority.db")).unwrap();
    // Takes back what every later version added.
    for added in [
        "DROP TABLE idle_terms",
        "DROP TABLE directory_entries",
        "DROP TABLE directories",
        "ALTER TABLE users DROP COLUMN active",
        "ALTER TABLE users DROP COLUMN password",
        "ALTER TABLE events DROP COLUMN session",
        "ALTER TABLE events DROP COLUMN subject_kind",
        "ALTER TABLE sessions DROP COLUMN names",
    ] {
        file.execute_batch(added).unwrap();
    }
    file.execute_batch("PRAGMA user_version = 3").unwrap();
    file.close().unwrap();

    let stage = stage.restart();
    let ada = |stage: &Stage| stage.admin("GET", "/v1/users/ada", &Value::Null).json();
    assert_eq!(ada(&stage)["has_password"], false);
    assert_eq!(stage.api("/deals/7", &token), 200, "a token from before");
    let password = json!({"password": "correct horse"});
    assert_eq!(stage.admin("PUT", "/v1/users/ada/password", &password).status(), 204);
    assert_eq!(stage.api("/deals/7", &token), 200, "a password ends no token");
    let hash = stored(&folder, "ada");
    assert!(keeps(&folder, "ada", "correct horse"));
    // Killed, with whatever is not in the file yet.
    let mut stage = stage.restart();
    for roles in [json!({"roles": ["case-writer"]}), json!({"roles": ["case-reader", "case-writer"]})] {
        assert_eq!(stage.admin("PUT", "/v1/users/ada/roles", &roles).status(), 200);
        stage = stage.restart();
        assert_eq!((&ada(&stage)["roles"], &ada(&stage)["has_password"]), (&roles["roles"], &json!(true)));
        assert_eq!(stored(&folder, "ada"), hash, "{roles}");
    }
    assert_eq!(stage.admin("DELETE", "/v1/users/ada", &Value::Null).status(), 204);
    stage.user("ada", &[]);
    let stage = stage.restart();
    assert_eq!((ada(&stage)["has_password"].clone(), stored(&folder, "ada")), (json!(false), None));
}

#[test]
fn no_password_and_no_hash_is_written_or_answered_at_any_level() {
    let operated = Operated::start("log_level = \"trace\"");
    operated.says(&["user", "create", "alice", "--role", "r"]);
    let set = ["user", "password", "alice", "--stdin"];
    let refused = operated.run_reading(&set, b"kurz-42\n");
    assert!(refused.code == 1 && !refused.err.contains("kurz-42"), "{refused:?}");
    let mut answers = String::new();
    let call = |method: &str, body: Value, status: u16| {
        let answer = operated.gate.operate(method, "/v1/users/alice/password", Some(&body));
        assert_eq!(answer.status(), status, "{body}: {}", answer.text());
        answer.text()
    };
    for (body, status) in [
        (json!({"password": "tr0ub4dor-and-3"}), 204),
        (json!({"password": "kurz-42"}), 400),
        (json!({"password": "tr0ub4dor-and-3".repeat(100)}), 400),
        (json!({"password": "tr0ub4dor-and-3", "user": "alice"}), 400),
        (json!({"passwort": "tr0ub4dor-and-3"}), 400),
        (json!({"password": ["tr0ub4dor-and-3"]}), 400),
        (json!({"password": {"tr0ub4dor-and-3": 1}}), 400),
        (json!({"password": 314_159_265_358_979_u64}), 400),
        (json!({"password": -314_159_265.358_979}), 400),
        (json!("tr0ub4dor-and-3"), 400),
        (json!(314_159_265_358_979_u64), 400),
        (json!(-314_159_265_358_979_i64), 400),
        (json!(["tr0ub4dor-and-3"]), 400),
    ] {
        answers += &call("PUT", body, status);
    }
    let outcome = operated.run_reading(&set, b"correct horse battery staple\n");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let hash = operated.stored().unwrap();
    operated.says(&["user", "roles", "alice", "--none"]);
    for arguments in [&["user", "show", "alice"][..], &["user", "list"]] {
        answers += &operated.says(arguments);
        answers += &operated.json(arguments).to_string();
    }
    answers += &operated.gate.operate("GET", "/v1/config", None).text();
    answers += &operated.gate.operate("GET", "/v1/events", None).text();
    operated.says(&["user", "password", "alice", "--remove"]);

    operated.gate.log().wait_for("the record of the last call", |record| {
        field(record, "method") == Some("DELETE") && field(record, "path") == Some("/v1/users/{id}/password")
    });
    let (log, metrics) = (operated.gate.log().text(), operated.gate.telemetry("/metrics").text());
    assert!(
        log.lines().filter(|line| line.contains("/v1/users/{id}/password")).count() >= 14,
        "a log to look at"
    );
    let file = rusqlite::Connection::open(operated.gate.settings.folder().join("authority.db")).unwrap();
    let intents: i64 = file.query_row("SELECT count(*) FROM intents", [], |row| row.get(0)).unwrap();
    assert_eq!(intents, 0);
    let bytes: Vec<u8> = ["authority.db", "authority.db-wal"]
        .iter()
        .flat_map(|name| std::fs::read(operated.gate.settings.folder().join(name)).unwrap_or_default())
        .collect();
    let files = String::from_utf8_lossy(&bytes);
    for secret in ["tr0ub4dor", "kurz-42", "314159265", "correct horse", "battery"] {
        for (place, text) in [("log", &*log), ("metrics", &metrics), ("answers", &answers), ("files", &files)]
        {
            let found = text.lines().find(|line| line.contains(secret));
            assert!(found.is_none(), "{secret:?} in the {place}: {found:?}");
        }
    }
    let digest = hash.rsplit('$').next().unwrap();
    for secret in ["argon2", digest] {
        for (place, text) in [("log", &*log), ("metrics", &metrics), ("answers", &answers)] {
            let found = text.lines().find(|line| line.contains(secret));
            assert!(found.is_none(), "{secret:?} in the {place}: {found:?}");
        }
    }
}
