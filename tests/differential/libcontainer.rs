//! libcontainer's own conductor as a runtime, so that it can be a peer. It works in the calling process and wants one
//! thread only.
//!
//!   --root ROOT run --detach --bundle BUNDLE ID
//!   --root ROOT delete --force ID

use std::error::Error;
use std::fs;
use std::path::Path;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;

pub fn main(words: &[String]) -> Result<(), Box<dyn Error>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--root", root, "run", "--detach", "--bundle", bundle, id] => {
            fs::create_dir_all(root)?;
            let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default()).with_root_path(root)?;
            builder.as_init(bundle).with_systemd(false).with_detach(true).build()?.start()?;
        }
        ["--root", root, "delete", "--force", id] => {
            let state = Path::new(root).join(id);
            if state.exists() {
                Container::load(state)?.delete(true)?;
            }
        }
        _ => return Err(format!("not a command of this peer: {words:?}").into()),
    }
    Ok(())
}
