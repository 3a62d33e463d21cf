//! Tables in the documentation that list a closed set from the code.

use portcullis::enforce::denial::Reason;
use testkit::documents::{document, quoted, table};

#[test]
fn the_table_of_reasons_has_every_reason_with_its_answer() {
    let rows = table(&document("docs/reasons.md"), "Reasons");
    let documented: Vec<_> = rows
        .iter()
        .map(|row| (quoted(&row[0]).concat(), row[1].parse::<u16>().unwrap(), quoted(&row[2]).concat()))
        .collect();
    let real: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| {
            let wire = reason.wire();
            (reason.as_str().to_owned(), wire.status.as_u16(), wire.error.to_owned())
        })
        .collect();
    assert_eq!(documented, real);
}
