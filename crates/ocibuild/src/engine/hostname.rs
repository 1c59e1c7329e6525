//! The name that commands see for their machine: `buildkitsandbox`, or what the build
//! argument `BUILDKIT_SANDBOX_HOSTNAME` says.

use std::collections::BTreeMap;

use crate::error::Error;

const NAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
const DEFAULT: &str = "buildkitsandbox";
/// What the kernel takes (`HOST_NAME_MAX`, gethostname(2)).
const MAX: usize = 64;

type Args = BTreeMap<String, String>;

/// Gives the name.
pub(super) fn of(args: &Args) -> &str {
    given(args).unwrap_or(DEFAULT)
}

/// Gives the name where it is another than always.
pub(super) fn given(args: &Args) -> Option<&str> {
    let given = args.get(NAME).map(String::as_str);
    given.filter(|name| !name.is_empty() && *name != DEFAULT)
}

/// Refuses a name that is none (RFC 1123, 2.1): it ends in `/etc/hosts`, too.
pub(super) fn check(args: &Args) -> Result<(), Error> {
    let name = of(args);
    let is_valid = name.len() <= MAX
        && !name.starts_with(['-', '.'])
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    match is_valid {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "--build-arg {NAME}={name:?}: want up to {MAX} letters, digits, dots and dashes"
        ))),
    }
}
