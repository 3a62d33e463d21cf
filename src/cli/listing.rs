//! Lists of the admin API as commands print them: filtered, limited, and with a note if there is more.

use clap::Args;
use serde_json::Value;

use super::remote::{Failure, Remote, query};
use super::table::cell;

/// Which part of a list to read.
#[derive(Args)]
pub(super) struct ListLength {
    /// Show at most so many items; all, if omitted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Continue after this place, which `next` of the previous response named.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

impl ListLength {
    /// Reads a list with these filters.
    pub(super) fn read(
        &self,
        remote: &Remote,
        endpoint: &str,
        filters: &[(&str, &Option<String>)],
    ) -> Result<Value, Failure> {
        let most = self.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        remote.list_from(&query(endpoint, filters), self.after.as_deref(), most)
    }

    /// Formats the items as a table, and says how to continue if there are more.
    pub(super) fn table(&self, list: &Value, table: impl FnOnce(&Value) -> String) -> String {
        let shown = table(&list["items"]);
        match &list["next"] {
            Value::Null => shown,
            next => format!("{shown}\nThere are more: --after {} continues.", cell(next)),
        }
    }
}
