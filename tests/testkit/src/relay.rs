//! A relay between gates and a server that holds back one command until the test releases it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use crate::PATIENCE;

/// The state of the held command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Awaited,
    Held,
    Released,
}

type Door = Arc<(Mutex<Progress>, Condvar)>;

/// A relay on a port of its own.
pub struct Relay {
    port: u16,
    door: Door,
}

impl Relay {
    /// Forwards everything to the server at this port, except the first bytes that `is_wanted` matches and what
    /// follows on their connection, which it holds back.
    pub fn start(server: u16, is_wanted: fn(&[u8]) -> bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let door: Door = Arc::new((Mutex::new(Progress::Awaited), Condvar::new()));
        let held = Arc::clone(&door);
        // Runs until the test process ends; there is nothing to clean up.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let door = Arc::clone(&held);
                std::thread::spawn(move || copy(client, server, |bytes| hold(&door, is_wanted(bytes))));
                std::thread::spawn(move || copy(back.0, back.1, |_| ()));
            }
        });
        Self { port, door }
    }

    /// Its URL, for gates.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Waits until the command has arrived.
    pub fn wait_until_held(&self) {
        let (stage, changed) = &*self.door;
        let waited =
            changed.wait_timeout_while(stage.lock().unwrap(), PATIENCE, |stage| *stage == Progress::Awaited);
        assert_eq!(*waited.unwrap().0, Progress::Held, "the command never came");
    }

    /// Forwards the command.
    pub fn release(&self) {
        *self.door.0.lock().unwrap() = Progress::Released;
        self.door.1.notify_all();
    }
}

fn hold(door: &Door, is_wanted: bool) {
    let (stage, changed) = &**door;
    let mut stage = stage.lock().unwrap();
    if is_wanted && *stage == Progress::Awaited {
        *stage = Progress::Held;
        changed.notify_all();
        drop(changed.wait_timeout_while(stage, PATIENCE, |stage| *stage == Progress::Held));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        look(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}
