//! The worker threads: one runtime, one set of listeners and one set of upstream connections each.

use std::io;
use std::net::{SocketAddr, TcpListener};

use tokio::sync::mpsc;
use tracing::error;

use crate::gate::{self, WorkersShared};

/// The running worker threads.
#[derive(Debug)]
pub(super) struct Workers {
    /// Receives one message from each thread that ends; closed once all have.
    ended: mpsc::Receiver<()>,
}

/// Sends a message when its thread ends, by returning or by a panic.
struct Alive(mpsc::Sender<()>);

impl Drop for Alive {
    fn drop(&mut self) {
        // The channel has room for every thread's message; without a receiver nobody waits for it.
        let _ = self.0.try_send(());
    }
}

impl Workers {
    /// Starts a thread for each of these sets of listeners; returns their addresses.
    pub(super) fn start(
        sets: Vec<Vec<TcpListener>>,
        shared: &WorkersShared,
    ) -> io::Result<(Self, Vec<SocketAddr>)> {
        let addresses =
            sets.first().map_or(Ok(Vec::new()), |set| set.iter().map(TcpListener::local_addr).collect())?;
        let (alive, ended) = mpsc::channel(sets.len());
        for (index, listeners) in sets.into_iter().enumerate() {
            let (shared, alive) = (shared.clone(), Alive(alive.clone()));
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _alive = alive;
                if let Err(error) = gate::run_worker(listeners, shared) {
                    error!(worker = index, %error, "a worker cannot start");
                }
            })?;
        }
        Ok((Self { ended }, addresses))
    }

    /// Waits until a thread has ended.
    pub(super) async fn any_ended(&mut self) {
        self.ended.recv().await;
    }

    /// Waits until every thread has ended.
    pub(super) async fn ended(&mut self) {
        while self.ended.recv().await.is_some() {}
    }
}
