//! What must hold for every input, whatever it is: one function over bytes for each room that reads what others write.
//!
//! The unit tests run each on its seeds (`tests/fuzz/seeds/<name>/`) and on mixtures of them; `tests/fuzz/run` runs each
//! under libFuzzer. A property panics where it does not hold. The seeds are texts, so that they can be read.

mod answers;
mod configuration;
mod events;
mod fields;
mod form;
mod jose;
mod jwks;
mod log_entry;
mod origins;
mod outbox;
mod requests;
mod routes;
mod signals;
mod target;
mod tls;

#[cfg(test)]
mod tests;

/// A property with the name of its seeds.
#[derive(Debug, Clone, Copy)]
pub struct Property {
    /// The name of the folder with its seeds.
    pub name: &'static str,
    /// Panics when it does not hold.
    pub check: fn(&[u8]),
}

const fn property(name: &'static str, check: fn(&[u8])) -> Property {
    Property { name, check }
}

/// Every property.
pub const ALL: &[Property] = &[
    property("answers", answers::check),
    property("configuration", configuration::check),
    property("events", events::check),
    property("fields", fields::check),
    property("form", form::check),
    property("jose", jose::check),
    property("jwks", jwks::check),
    property("log_entry", log_entry::check),
    property("origins", origins::check),
    property("outbox", outbox::check),
    property("requests", requests::check),
    property("routes", routes::check),
    property("signals", signals::check),
    property("target", target::check),
    property("tls", tls::check),
];

/// Ways to cut an input into pieces as a network may: byte by byte, in small steps, and in steps that follow from the input.
fn splits(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut ways: Vec<Vec<&[u8]>> =
        [1, 2, 3, 7, 64].iter().map(|size| input.chunks(*size).collect()).collect();
    let mut state = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let (mut rest, mut pieces) = (input, Vec::new());
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let size = usize::try_from(state >> 59).unwrap_or(0).clamp(1, rest.len());
        let (piece, after) = rest.split_at(size);
        pieces.push(piece);
        rest = after;
    }
    ways.push(pieces);
    ways
}
