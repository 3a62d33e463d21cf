//! An upstream's HTTP/1.1 answer reads the same however it is split, and nothing behind its end is used.

use bytes::BytesMut;
use http::Method;

use super::splits;
use crate::forward::headers::hop::is_hop_by_hop;
use crate::forward::http1::BadAnswer;
use crate::forward::http1::decode::body::{BodyDecoder, ResponsePiece};
use crate::forward::http1::decode::{self, HeadEnd, ResponseFraming, ResponseHead};

/// What was read.
#[derive(Debug, PartialEq, Eq)]
struct ReadAnswer {
    head: Option<ResponseHead>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    end: AnswerEnd,
}

#[derive(Debug, PartialEq, Eq)]
enum AnswerEnd {
    /// After so many bytes.
    Complete(usize),
    Truncated,
    Bad(BadAnswer),
}

/// What must hold.
pub(super) fn check(input: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let whole = read(&method, &[input]);
        for split in splits(input) {
            assert_eq!(read(&method, &split), whole, "another split of {}", input.escape_ascii());
        }
        let Some(head) = &whole.head else { continue };
        for name in head.headers.keys() {
            let switches = head.status.as_u16() == 101 && (*name == "connection" || *name == "upgrade");
            assert!(switches || !is_hop_by_hop(name), "{name} passes: {}", input.escape_ascii());
        }
        let AnswerEnd::Complete(used) = whole.end else { continue };
        if head.framing == ResponseFraming::Close {
            continue;
        }
        let alone = input.get(..used).unwrap_or_default();
        assert_eq!(read(&method, &[alone]), whole, "without what is behind {}", alone.escape_ascii());
        let followed = [alone, b"HTTP/1.1 500 No\r\ncontent-length: 1\r\n\r\nx"].concat();
        assert_eq!(read(&method, &[&followed]), whole, "with more behind {}", alone.escape_ascii());
    }
}

fn read(method: &Method, pieces: &[&[u8]]) -> ReadAnswer {
    let (mut buffer, mut end, mut fed) = (BytesMut::new(), HeadEnd::default(), 0);
    let mut answer =
        ReadAnswer { head: None, body: Vec::new(), trailers: Vec::new(), end: AnswerEnd::Truncated };
    let mut decoder: Option<BodyDecoder> = None;
    let mut pieces = pieces.iter();
    loop {
        let step = match &mut decoder {
            None => decode::head(&mut buffer, &mut end, method).map(|head| {
                decoder = head.as_ref().map(|head| BodyDecoder::new(head.framing));
                answer.head = head;
                decoder.is_none()
            }),
            Some(body) => body.next(&mut buffer).map(|piece| match piece {
                ResponsePiece::Data(data) => {
                    answer.body.extend_from_slice(&data);
                    false
                }
                ResponsePiece::Trailers(fields) => {
                    let pairs = fields.iter();
                    answer.trailers =
                        pairs.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
                    false
                }
                ResponsePiece::End => {
                    answer.end = AnswerEnd::Complete(fed - buffer.len());
                    false
                }
                ResponsePiece::More => true,
            }),
        };
        match (step, &answer.end) {
            (Err(bad), _) => return ReadAnswer { end: AnswerEnd::Bad(bad), ..answer },
            (Ok(_), AnswerEnd::Complete(_)) => return answer,
            (Ok(false), _) => {}
            (Ok(true), _) => match pieces.next() {
                Some(piece) => {
                    fed += piece.len();
                    buffer.extend_from_slice(piece);
                }
                None => {
                    if decoder.as_mut().is_some_and(BodyDecoder::ends_with_connection) {
                        answer.end = AnswerEnd::Complete(fed);
                    }
                    return answer;
                }
            },
        }
    }
}
