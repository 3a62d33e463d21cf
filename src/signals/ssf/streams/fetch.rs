//! Polls signals from a transmitter that does not push (RFC 8936), one request after another.
//!
//! A token is processed like a pushed one, and is acknowledged only when it is durable and in force.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::api::{retry_after, sensitive};
use super::poll::{Delivered, PollExchange, Polled};
use crate::client::{Client, GetError, Url};
use crate::signals::Concealed;
use crate::signals::ssf::{Receiver, Undelivered};
use crate::time::{Monotonic, Timestamp};

/// The polling endpoint and its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PollAccess {
    pub(super) url: Url,
    /// The value of the `Authorization` field.
    pub(super) authorization: Option<Concealed>,
}

/// A problem with the endpoint that the owner of the stream should act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollTrouble {
    /// The credential was rejected.
    Unauthorized,
    /// The endpoint no longer exists.
    Gone,
}

/// Polls the signals of one transmitter.
#[derive(Debug)]
pub(super) struct Fetcher<'a> {
    pub(super) transmitter: &'a str,
    pub(super) receiver: &'a Receiver,
    pub(super) client: &'a Client,
    pub(super) trouble: mpsc::Sender<PollTrouble>,
}

impl Fetcher<'_> {
    /// Polls whenever the endpoint is known, until the owner of the stream stops.
    pub(super) async fn run(&self, mut access: watch::Receiver<Option<PollAccess>>) {
        let (mut exchange, mut failure) = (PollExchange::new(), None);
        loop {
            let Ok(from) = access.wait_for(Option::is_some).await.map(|access| access.clone()) else {
                return;
            };
            let Some(from) = from else { continue };
            access.mark_unchanged();
            let (pause, why) = match self.fetch(&from, &mut exchange).await {
                Ok(pause) => (pause, None),
                Err((pause, why)) => (pause, Some(why)),
            };
            if failure != why {
                match &why {
                    Some(why) => {
                        tracing::warn!(transmitter = self.transmitter, why, "cannot poll for signals")
                    }
                    None => tracing::info!(transmitter = self.transmitter, "polling for signals works again"),
                }
                failure = why;
            }
            tokio::select! {
                () = sleep(pause) => {}
                // The credential or the endpoint has changed.
                _ = access.changed(), if !pause.is_zero() => {}
            }
        }
    }

    /// Polls once; returns how long to wait before the next time, and why it failed.
    async fn fetch(
        &self,
        from: &PollAccess,
        exchange: &mut PollExchange,
    ) -> Result<Duration, (Duration, String)> {
        let request = request(from, exchange).map_err(|why| (exchange.failed(None), why))?;
        let began = Monotonic::now();
        let response = match self.client.send(&from.url, request).await {
            Ok(response) => response,
            Err(GetError::Timeout) => return Ok(PollExchange::nothing()),
            Err(GetError::TooLarge) => {
                return Err((exchange.too_large(), "a response is larger than 1 MiB".to_owned()));
            }
            Err(error) => return Err((exchange.failed(None), error.to_string())),
        };
        let took = Monotonic::now().since(began);
        if response.status() != StatusCode::OK {
            return Err(self.denied(&response, exchange));
        }
        let polled = Polled::read(response.body()).map_err(|why| (exchange.failed(None), why))?;
        let Some(transmitter) = self.receiver.transmitter(self.transmitter) else {
            return Err((exchange.failed(None), "the transmitter is no longer configured".to_owned()));
        };
        // All tokens concurrently, so that the store makes them durable in one commit.
        let delivering = polled.sets.into_iter().map(|(jti, set)| {
            let transmitter = &transmitter;
            async move {
                let kind = Some("application/secevent+jwt");
                let became = match self.receiver.deliver(transmitter, set.as_bytes(), kind).await {
                    Ok(_answer) => Delivered::Durable,
                    Err(Undelivered::Refused(refusal)) => {
                        Delivered::Refused(refusal.code.as_str(), refusal.description.to_owned())
                    }
                    Err(Undelivered::NoKeys | Undelivered::Store(_)) => Delivered::NotNow,
                };
                (jti, became)
            }
        });
        let mut delivered = Box::pin(join_all(delivering)).await;
        let refused =
            || Delivered::Refused("invalid_request", "a security event token must be a string".to_owned());
        delivered.extend(polled.unreadable.into_iter().map(|jti| (jti, refused())));
        Ok(exchange.delivered(delivered, polled.more, took))
    }

    fn denied(&self, response: &Response<Bytes>, exchange: &mut PollExchange) -> (Duration, String) {
        let status = response.status();
        if let Some(trouble) = trouble(status) {
            // If the queue is full, the owner already knows of a problem.
            self.trouble.try_send(trouble).ok();
        }
        let asks_to_wait = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let wait = asks_to_wait.then(|| retry_after(response.headers(), Timestamp::now())).flatten();
        (exchange.failed(wait), format!("the poll endpoint responded with {status}"))
    }
}

/// What a poll endpoint that responds with this status needs from the owner of the stream.
const fn trouble(status: StatusCode) -> Option<PollTrouble> {
    match status {
        StatusCode::UNAUTHORIZED => Some(PollTrouble::Unauthorized),
        StatusCode::NOT_FOUND => Some(PollTrouble::Gone),
        _ => None,
    }
}

fn request(from: &PollAccess, exchange: &PollExchange) -> Result<Request<Bytes>, String> {
    let mut request = Request::new(Bytes::from(exchange.request().to_string()));
    *request.method_mut() = Method::POST;
    let fields = request.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if exchange.describes() {
        fields.insert(CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    }
    if let Some(authorization) = &from.authorization {
        fields.insert(AUTHORIZATION, sensitive(authorization.reveal())?);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_told_of_a_rejected_credential_and_of_a_lost_endpoint() {
        for (status, expected) in [
            (401, Some(PollTrouble::Unauthorized)),
            (404, Some(PollTrouble::Gone)),
            (400, None),
            (403, None),
            (429, None),
            (503, None),
        ] {
            assert_eq!(trouble(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }
}
