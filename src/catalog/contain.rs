//! Panics of redb, made errors.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result, Subject};

thread_local! {
    /// Whether this thread is in [`contain`].
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would now be caught by the library and become an [`Error`]: its database panics on some
/// damaged pages. A panic hook may leave such a panic out, since the error says what it would.
///
/// ```
/// let default = std::panic::take_hook();
/// std::panic::set_hook(Box::new(move |panic| {
///     if !layerstone::is_panic_contained() {
///         default(panic);
///     }
/// }));
/// ```
#[must_use]
pub fn is_panic_contained() -> bool {
    // With `panic = "abort"` none is caught.
    cfg!(panic = "unwind") && IS_CONTAINED.get()
}

/// Sets the flag until it is dropped, also by a panic; then it is what it was before, so that one may be within another.
struct Containment {
    was_contained: bool,
}

impl Containment {
    fn begin() -> Self {
        Self { was_contained: IS_CONTAINED.replace(true) }
    }
}

impl Drop for Containment {
    fn drop(&mut self) {
        IS_CONTAINED.set(self.was_contained);
    }
}

/// Runs what calls redb, which panics on some damaged pages: here that is an error like any other damage. What the
/// panic leaves half done is a transaction that was not committed.
pub(super) fn contain<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let contained = || {
        let _contained = Containment::begin();
        run()
    };
    catch_unwind(AssertUnwindSafe(contained)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Error::corrupt(Subject::Catalog, format!("its pages are damaged: {text}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_flag_is_set_only_where_one_is_caught() {
        assert!(!is_panic_contained());
        let error = contain(|| {
            assert!(is_panic_contained());
            contain::<()>(|| panic!("within")).unwrap_err();
            assert!(is_panic_contained(), "the outer one goes on");
            assert!(!std::thread::spawn(is_panic_contained).join().unwrap());
            contain(|| Ok(()))?;
            assert!(is_panic_contained());
            Err::<(), _>(Error::invalid(Subject::Catalog, "no"))
        });
        assert_eq!(error.unwrap_err().message(), "no");
        assert!(!is_panic_contained());
        let error = contain::<()>(|| panic!("page {}", 7)).unwrap_err();
        assert!(error.is_corrupt() && error.message().ends_with(": page 7"), "{error}");
        assert!(!is_panic_contained());
    }
}
