//! `hostname` and `domainname` of the container's UTS namespace.

use oci_spec::runtime::Spec;

use crate::error::{At, Result};
use crate::sys::attributes;

/// Sets both names where the configuration has them. The caller is in the container's own UTS namespace.
///
/// # Errors
/// As `sethostname(2)`.
pub fn set_names(spec: &Spec) -> Result<()> {
    if let Some(name) = spec.hostname().as_deref().filter(|name| !name.is_empty()) {
        attributes::sethostname(name).at("set hostname", name)?;
    }
    if let Some(name) = spec.domainname().as_deref().filter(|name| !name.is_empty()) {
        attributes::setdomainname(name).at("set domainname", name)?;
    }
    Ok(())
}
