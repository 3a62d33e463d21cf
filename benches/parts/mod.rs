//! The parts of a request's path whose instructions `cargo bench --bench parts` counts.
//!
//! A module of the library, only for this bench and its test (`src/lib.rs`), like the properties for the fuzz
//! targets: most parts are private, and a public interface for a bench would be a promise to users.

#[path = "wire.rs"]
mod wire;

/// A part: created once with everything it needs, then called repeatedly with the same input.
pub struct Part {
    /// Its name in the table.
    pub name: String,
    /// One call.
    pub call: Box<dyn FnMut()>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A part with this name.
pub(crate) fn part(name: impl Into<String>, call: impl FnMut() + 'static) -> Part {
    Part { name: name.into(), call: Box::new(call) }
}

/// All parts, in the order of the path; the first does nothing and shows the cost of counting itself.
#[must_use]
pub fn all() -> Vec<Part> {
    let nothing = part("nothing", || {});
    let (decision, record) = (crate::enforce::parts::all(), crate::gate::parts::all());
    [vec![nothing], wire::from_client(), decision, wire::upstream(), wire::to_client(), record]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_part_can_be_called_again_and_has_a_name_of_its_own() {
        let mut names = Vec::new();
        for mut part in super::all() {
            (0..3).for_each(|_| (part.call)());
            assert!(!names.contains(&part.name), "{}", part.name);
            names.push(part.name);
        }
        assert!(names.len() > 15, "{names:?}");
    }
}
