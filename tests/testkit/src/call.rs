//! One request on a connection that the test's runtime drives, because the server runs on it, too.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PATIENCE;
use crate::wire::Answer;

/// A request that asks to close the connection; `fields` are complete lines.
pub fn request(line: &str, fields: &[&str], body: &str) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nhost: gate\r\nconnection: close\r\n{length}{fields}\r\n{body}")
}

/// Sends a request and reads until the other side closes.
pub async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    stream.write_all(head.as_bytes()).await.unwrap();
    // A body that is rejected before it is read may find the connection closed.
    drop(stream.write_all(body.as_bytes()).await);
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an answer in time").unwrap();
    Answer::parsed(bytes, head.starts_with("HEAD ")).unwrap()
}

/// One request on a connection of its own.
pub async fn call(address: SocketAddr, line: &str, fields: &[&str], body: &str) -> Answer {
    exchange(TcpStream::connect(address).await.unwrap(), &request(line, fields, body)).await
}
