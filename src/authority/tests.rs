//! The authority on a store in memory: who gets which token, and what a change ends.

use super::*;
