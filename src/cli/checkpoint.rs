//! `rustbox checkpoint`.

use std::path::PathBuf;

use crate::cli::Global;
use crate::container::checkpoint::{self, CgroupsMode, Dump, Images};
use crate::error::{At, Error, Result};

/// Options of `checkpoint` and `restore` alike.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "CRIU")]
pub struct ImageArgs {
    /// Directory of CRIU's images [default: checkpoint]
    #[arg(long, value_name = "DIR", default_value = "checkpoint", hide_default_value = true)]
    image_path: PathBuf,
    /// Directory of CRIU's log and other work [default: that of the images]
    #[arg(long, value_name = "DIR")]
    work_path: Option<PathBuf>,
    /// Keep established TCP connections
    #[arg(long)]
    tcp_established: bool,
    /// Allow unix sockets whose other end is outside
    #[arg(long)]
    ext_unix_sk: bool,
    /// Allow processes of a session that began outside
    #[arg(long)]
    shell_job: bool,
    /// Keep file locks
    #[arg(long)]
    file_locks: bool,
    /// What is done with cgroups
    #[arg(long, value_name = "MODE", default_value = "soft")]
    manage_cgroups_mode: Mode,
    /// Leave a namespace empty; only `network`
    #[arg(long, value_name = "NAMESPACE")]
    empty_ns: Vec<String>,
    /// Deduplicate memory images
    #[arg(long)]
    auto_dedup: bool,
    /// Bring memory when it is touched, by userfaultfd
    #[arg(long)]
    lazy_pages: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    Soft,
    Full,
    Strict,
    Ignore,
}

impl ImageArgs {
    /// The options in the library's terms.
    ///
    /// # Errors
    /// [`Error::Usage`] for a namespace that cannot be left empty; where the working directory is gone.
    pub fn images(&self, global: &Global) -> Result<Images> {
        let absolute = |path: &PathBuf| std::path::absolute(path).at("name", path.display());
        if let Some(other) = self.empty_ns.iter().find(|name| *name != "network") {
            return Err(Error::Usage(format!("--empty-ns `{other}` is not supported, only `network` is")));
        }
        Ok(Images {
            criu: global.criu.clone(),
            directory: absolute(&self.image_path)?,
            work: self.work_path.as_ref().map(absolute).transpose()?,
            tcp_established: self.tcp_established,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            cgroups: match self.manage_cgroups_mode {
                Mode::Soft => CgroupsMode::Soft,
                Mode::Full => CgroupsMode::Full,
                Mode::Strict => CgroupsMode::Strict,
                Mode::Ignore => CgroupsMode::Ignore,
            },
            empty_network: !self.empty_ns.is_empty(),
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
        })
    }
}

/// Save a running container's processes by CRIU, and delete it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    images: ImageArgs,
    /// Directory of the images of an earlier --pre-dump, relative to --image-path
    #[arg(long, value_name = "DIR")]
    parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    leave_running: bool,
    /// Save only the memory, and let the container go on
    #[arg(long)]
    pre_dump: bool,
    /// Descriptor that gets a zero byte once lazy pages can be asked for
    #[arg(long, value_name = "FD", allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    status_fd: i32,
    /// Page server that takes the memory
    #[arg(long, value_name = "ADDRESS:PORT")]
    page_server: Option<String>,
    /// Name of the container
    #[arg(value_name = "ID")]
    id: String,
}

/// Runs `checkpoint`.
///
/// # Errors
/// Where the container does not run, or CRIU cannot save it; it then goes on.
pub fn main(global: &Global, args: &Args) -> Result<()> {
    let page_server = args.page_server.as_deref().map(|text| {
        let address = text.rsplit_once(':').and_then(|(address, port)| Some((address.to_owned(), port.parse().ok()?)));
        address.ok_or_else(|| Error::Usage(format!("--page-server `{text}` is not ADDRESS:PORT")))
    });
    let dump = Dump {
        images: args.images.images(global)?,
        parent: args.parent_path.clone(),
        leave_running: args.leave_running,
        pre_dump: args.pre_dump,
        status_fd: Some(args.status_fd).filter(|fd| *fd >= 0),
        page_server: page_server.transpose()?,
    };
    let Some(deleted) = checkpoint::checkpoint(&global.open_root()?, &args.id, &dump)? else { return Ok(()) };
    deleted.warnings.iter().for_each(|warning| global.log().warn(&warning.to_string()));
    deleted.proof.require().map(drop)
}
