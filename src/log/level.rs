//! `log_level`: which events are written.
//!
//! Only targets of this program can be named. At finer levels, HTTP and TLS libraries may log what they read,
//! including tokens; they are logged only from `warn` upwards, whatever is configured.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The target of every line of this program.
const OURS: &str = "portcullis";

/// Why a `log_level` is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LevelError {
    /// Not one of the five levels, nor `off`.
    Level(String),
    /// The target belongs to a library.
    Target(String),
}

impl std::fmt::Display for LevelError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Level(word) => {
                write!(f, "`{word}` is not a log level; use error, warn, info, debug, trace or off")
            }
            Self::Target(target) => write!(
                f,
                "`{target}` cannot be given a level: only portcullis and its modules can, because libraries may print \
                 tokens at finer levels"
            ),
        }
    }
}

impl std::error::Error for LevelError {}

/// Parses `level` or `level,target=level,…`, and limits the libraries.
pub(super) fn parse(text: &str) -> Result<Targets, LevelError> {
    let mut default = LevelFilter::INFO;
    let mut named = Vec::new();
    for directive in text.split(',').map(str::trim) {
        match directive.split_once('=') {
            None => default = level(directive)?,
            Some((target, word)) if target == OURS || target.starts_with("portcullis::") => {
                named.push((target, level(word)?));
            }
            Some((target, _)) => return Err(LevelError::Target(target.to_owned())),
        }
    }
    // `LevelFilter` orders by verbosity: `TRACE` is the greatest.
    let libraries = default.min(LevelFilter::WARN);
    Ok(Targets::new().with_default(libraries).with_target(OURS, default).with_targets(named))
}

fn level(word: &str) -> Result<LevelFilter, LevelError> {
    match word.to_ascii_lowercase().as_str() {
        "off" => Ok(LevelFilter::OFF),
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(LevelError::Level(word.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_is_a_level_and_levels_of_targets() {
        for (text, target, level, enabled) in [
            ("info", "portcullis::keys", Level::INFO, true),
            ("info", "portcullis::keys", Level::DEBUG, false),
            ("INFO", "portcullis::app", Level::INFO, true),
            ("info,portcullis::keys=debug", "portcullis::keys::refresh", Level::DEBUG, true),
            ("info,portcullis::keys=debug", "portcullis::app", Level::DEBUG, false),
            ("warn, portcullis::access=info", "portcullis::access", Level::INFO, true),
            ("portcullis::keys=trace", "portcullis::app", Level::INFO, true),
            ("off", "portcullis::app", Level::ERROR, false),
            ("error", "h2::codec", Level::WARN, false),
            ("trace", "h2::codec", Level::WARN, true),
            ("trace", "h2::codec", Level::INFO, false),
            ("trace", "hyper::proto", Level::TRACE, false),
            ("trace,portcullis=trace", "rustls::server", Level::DEBUG, false),
        ] {
            let filter = parse(text).expect(text);
            assert_eq!(filter.would_enable(target, &level), enabled, "{text}: {target} at {level}");
        }
    }

    #[test]
    fn refuses_what_is_no_level() {
        for text in ["", "verbose", "info,", "portcullis::keys", "portcullis=loud", "3"] {
            assert!(matches!(parse(text), Err(LevelError::Level(_))), "{text:?}");
        }
        for text in ["h2=trace", "info,hyper=debug", "=debug", "portcullisx=debug"] {
            assert!(matches!(parse(text), Err(LevelError::Target(_))), "{text:?}");
        }
    }
}
