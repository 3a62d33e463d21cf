//! The metadata that a transmitter publishes (SSF 1.0 §7.1): the endpoints for managing its streams. Pure.

use serde_json::{Map, Value};

use crate::client::{Url, UrlError};
use crate::jose::json;

/// The endpoints of a transmitter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamMetadata {
    /// For creating, reading and updating streams.
    pub(super) configuration: Url,
    /// For reading the status of a stream.
    pub(super) status: Option<Url>,
    /// For requesting a verification event.
    pub(super) verification: Option<Url>,
    /// For adding subjects.
    pub(super) add_subject: Option<Url>,
    /// The supported delivery methods; empty if the metadata does not say.
    methods: Vec<String>,
}

impl StreamMetadata {
    /// Parses the document of this issuer.
    pub(super) fn read(document: &[u8], issuer: &str, insecure_http: bool) -> Result<Self, String> {
        let members = json::object(document)
            .map_err(|_why| "the metadata must be a JSON object without repeated members".to_owned())?;
        match members.get("issuer").and_then(Value::as_str) {
            Some(named) if named == issuer => {}
            Some(named) => {
                let named: String = named.chars().take(200).collect();
                return Err(format!("the metadata belongs to another issuer, {named:?}"));
            }
            None => return Err("the metadata names no issuer".to_owned()),
        }
        let url = |name: &str| endpoint(&members, name, issuer, insecure_http);
        let configuration = url("configuration_endpoint")?;
        let configuration = configuration
            .ok_or("the metadata has no configuration_endpoint, so the gate cannot create a stream")?;
        let methods = members.get("delivery_methods_supported").and_then(Value::as_array);
        let methods = methods.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Self {
            configuration,
            status: url("status_endpoint")?,
            verification: url("verification_endpoint")?,
            add_subject: url("add_subject_endpoint")?,
            methods,
        })
    }

    /// Whether the metadata says that this delivery method is not supported.
    pub(super) fn lacks(&self, method: &str) -> bool {
        !self.methods.is_empty() && !self.methods.iter().any(|known| known == method)
    }
}

/// Parses a URL that the transmitter names. A transmitter that is reached over `https` cannot direct the gate
/// to plain-`http` services on the gate's own machine.
pub(super) fn named_url(text: &str, issuer: &str, insecure_http: bool) -> Result<Url, UrlError> {
    let begins = |text: &str, scheme: &str| {
        text.get(..scheme.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(scheme))
    };
    if begins(text, "http:") && begins(issuer, "https:") && !insecure_http {
        return Err(UrlError::Insecure);
    }
    Url::parse(text, insecure_http)
}

fn endpoint(
    members: &Map<String, Value>,
    name: &str,
    issuer: &str,
    insecure_http: bool,
) -> Result<Option<Url>, String> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => match named_url(text, issuer, insecure_http) {
            Ok(url) => Ok(Some(url)),
            Err(error) => Err(format!("{name} of the metadata {error}")),
        },
        Some(_) => Err(format!("{name} of the metadata is not a string")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://idp.example.com/a";

    fn read(document: &Value) -> Result<StreamMetadata, String> {
        StreamMetadata::read(document.to_string().as_bytes(), ISSUER, false)
    }

    #[test]
    fn metadata_is_read_with_what_it_has() {
        let bare = json!({"issuer": ISSUER, "configuration_endpoint": "https://idp.example.com/s"});
        let metadata = read(&bare).unwrap();
        assert_eq!(metadata.configuration, Url::parse("https://idp.example.com/s", false).unwrap());
        assert_eq!((metadata.status.is_none(), metadata.verification.is_none()), (true, true));
        assert!(!metadata.lacks("urn:ietf:rfc:8935"), "it does not say");
        let mut full = bare;
        full["verification_endpoint"] = json!("https://idp.example.com/v");
        full["status_endpoint"] = json!("https://other.example.com/t");
        full["add_subject_endpoint"] = json!("https://idp.example.com/u");
        full["delivery_methods_supported"] = json!(["urn:ietf:rfc:8936"]);
        full["whatever"] = json!([{}]);
        let metadata = read(&full).unwrap();
        assert_eq!(metadata.status, Some(Url::parse("https://other.example.com/t", false).unwrap()));
        assert!(metadata.verification.is_some() && metadata.add_subject.is_some());
        assert!(metadata.lacks("urn:ietf:rfc:8935") && !metadata.lacks("urn:ietf:rfc:8936"));
    }

    #[test]
    fn only_a_transmitter_on_this_machine_names_urls_on_this_machine() {
        for (issuer, insecure_http, good) in [
            ("https://idp.example.com", false, false),
            ("HTTPS://idp.example.com", false, false),
            ("https://idp.example.com", true, true),
            ("http://127.0.0.1:8080", false, true),
        ] {
            let url = named_url("http://127.0.0.1:9443/", issuer, insecure_http);
            assert_eq!(url.is_ok(), good, "{issuer} {insecure_http}");
            assert!(named_url("https://127.0.0.1:9443/", issuer, insecure_http).is_ok(), "{issuer}");
        }
    }

    #[test]
    fn metadata_that_lies_or_leads_astray_is_refused() {
        let good = json!({"issuer": ISSUER, "configuration_endpoint": "https://idp.example.com/s"});
        for (name, value, said) in [
            ("issuer", json!("https://idp.example.com/a/"), "another issuer"),
            ("issuer", json!("https://IDP.example.com/a"), "another issuer"),
            ("issuer", json!([ISSUER]), "names no issuer"),
            ("issuer", json!(null), "names no issuer"),
            ("configuration_endpoint", json!(null), "no configuration_endpoint"),
            ("configuration_endpoint", json!(7), "is not a string"),
            ("configuration_endpoint", json!("/s"), "not an absolute URL"),
            ("configuration_endpoint", json!("http://idp.example.com/s"), "must be an https URL"),
            ("configuration_endpoint", json!("https://u:p@idp.example.com/s"), "user name"),
            ("status_endpoint", json!("http://idp.example.com/s"), "must be an https URL"),
            ("status_endpoint", json!("http://127.0.0.1/s"), "must be an https URL"),
            ("configuration_endpoint", json!("HTTP://localhost:9443/v1/reload"), "must be an https URL"),
            ("verification_endpoint", json!("file:///etc/passwd"), "not an absolute URL"),
            ("add_subject_endpoint", json!({}), "is not a string"),
        ] {
            let mut lie = good.clone();
            lie[name] = value;
            let error = read(&lie).unwrap_err();
            assert!(error.contains(said), "{lie}: {error}");
        }
        for text in
            ["", "[]", "null", "<html>", "{\"issuer\":\"https://idp.example.com/a\",\"issuer\":\"x\"}"]
        {
            assert!(StreamMetadata::read(text.as_bytes(), ISSUER, false).is_err(), "{text}");
        }
    }
}
