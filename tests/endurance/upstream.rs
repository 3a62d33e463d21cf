//! An HTTP/1.1 upstream for many connections in one thread, with a capacity if it is given one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use testkit::let_pass_async;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How many requests it works on at a time, and how long each takes; what comes meanwhile waits.
#[derive(Clone)]
pub struct Capacity {
    pub slots: Arc<Semaphore>,
    pub service: Duration,
}

/// Starts it on a thread that lasts as long as the process.
pub fn start(capacity: Option<Capacity>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let capacity = capacity.clone();
                tokio::spawn(async move { drop(serve(socket, capacity).await) });
            }
        });
    });
    address
}

async fn serve(mut socket: TcpStream, capacity: Option<Capacity>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        buffer.drain(..end);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize = field("content-length:").and_then(|text| text.parse().ok()).unwrap_or(0);
        while buffer.len() < length {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let body: Vec<u8> = buffer.drain(..length).collect();
        if field("upgrade:").is_some() {
            return tunnel(socket).await;
        }
        if let Some(Capacity { slots, service }) = &capacity {
            let _slot = slots.acquire().await.map_err(io::Error::other)?;
            let_pass_async(*service).await;
        }
        answer(&mut socket, head.split(' ').nth(1).unwrap_or_default(), &body).await?;
    }
}

async fn tunnel(mut socket: TcpStream) -> io::Result<()> {
    socket
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        .await?;
    let mut bytes = vec![0; 4096];
    loop {
        match socket.read(&mut bytes).await? {
            0 => return Ok(()),
            read => socket.write_all(&bytes[..read]).await?,
        }
    }
}

/// `/big/N`: N KiB; `/events`: ten pieces in two seconds; everything else: the body, or `ok`.
async fn answer(socket: &mut TcpStream, target: &str, body: &[u8]) -> io::Result<()> {
    const PIECE: [u8; 1024] = [b'x'; 1024];
    if let Some(count) = target.strip_prefix("/big/") {
        let count: usize = count.parse().unwrap_or(0);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", count * PIECE.len());
        socket.write_all(head.as_bytes()).await?;
        for _ in 0..count {
            socket.write_all(&PIECE).await?;
        }
        return Ok(());
    }
    if target == "/events" {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        socket.write_all(head.as_bytes()).await?;
        for _ in 0..10 {
            socket.write_all(b"8\r\ndata: 1\n\r\n").await?;
            let_pass_async(Duration::from_millis(200)).await;
        }
        return socket.write_all(b"0\r\n\r\n").await;
    }
    let body = if body.is_empty() { b"ok" } else { body };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    socket.write_all(&[head.as_bytes(), body].concat()).await
}
