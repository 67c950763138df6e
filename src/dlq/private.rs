//! Directories and files with keys, headers and values of records: readable by their owner only, whatever the umask.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Creates a directory and its missing parents.
///
/// # Errors
/// It cannot be created.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    close(path, 0o700);
    Ok(())
}

/// Creates or truncates a file.
///
/// # Errors
/// It cannot be written.
pub fn make_file(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().write(true).create(true).truncate(true))
}

/// Opens a file for appending, and creates it if missing.
///
/// # Errors
/// It cannot be written.
pub fn append_to_file(path: &Path) -> io::Result<File> {
    open(path, OpenOptions::new().append(true).create(true))
}

/// Removes the permissions of others from an existing file, if it is ours.
pub fn close_file(path: &Path) {
    if path.is_file() {
        close(path, 0o600);
    }
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.mode(0o600).open(path)?;
    // An existing file keeps its owner's mode; a device or a pipe is left alone.
    close_file(path);
    Ok(file)
}

fn close(path: &Path, mode: u32) {
    let Ok(found) = path.metadata() else { return };
    let own = found.permissions().mode() & 0o777;
    if own & !mode != 0 {
        // Another user's file keeps its mode.
        let _ = std::fs::set_permissions(path, Permissions::from_mode(own & mode));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_and_what_was_there_is_the_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        make_folder(&folder).unwrap();
        assert_eq!((mode(&root.path().join("a")), mode(&folder)), (0o700, 0o700));
        let (made, there) = (folder.join("made"), folder.join("there"));
        make_file(&made).unwrap();
        std::fs::write(&there, "x").unwrap();
        std::fs::set_permissions(&there, Permissions::from_mode(0o664)).unwrap();
        std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        append_to_file(&there).unwrap();
        make_folder(&folder).unwrap();
        assert_eq!((mode(&made), mode(&there), mode(&folder)), (0o600, 0o600, 0o700));
        assert_eq!(std::fs::read(&there).unwrap(), b"x");
        make_file(Path::new("/dev/null")).unwrap();
        assert_ne!(mode(Path::new("/dev/null")), 0o600);
    }
}
