//! What a change takes out of the directory, and whether it goes back.

use super::*;
use crate::authority::testing;

#[test]
fn what_a_change_took_goes_back_unless_the_change_stands() {
    for is_kept in [false, true] {
        let directory = Directory::default();
        let credential = testing::credential("app_c", "ada", &[], &[]);
        directory.replace(vec![testing::user("ada", &[])], vec![credential]);
        let taken = AccountChange::DeleteUser("ada".into()).take(&directory);
        assert_eq!(directory.counts(), (0, 0));
        if is_kept {
            taken.keep()
        } else {
            drop(taken)
        }
        assert_eq!(directory.counts(), if is_kept { (0, 0) } else { (1, 1) });
    }
}
