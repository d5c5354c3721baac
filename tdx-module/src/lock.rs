//! Try-once locks (architecture.md §7.2): nothing ever waits, a failure is a BUSY status.

use serde::{Deserialize, Serialize};

/// How a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Mode {
    /// With other readers.
    Shared,
    /// Alone.
    Exclusive,
}

/// Why a lock was not taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Busy {
    /// Somebody holds it.
    Taken,
    /// It is kept for the host, which has tried in vain. Only guests meet this one.
    HostPriority,
}

/// A shared/exclusive lock with host priority: 16 bits, EXCLUSIVE, HOST_PRIORITY and a counter of readers. Locks that
/// only the host takes never set HOST_PRIORITY; a mutex is one that is only taken exclusively.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, Serialize, Deserialize)]
pub struct Lock(u16);

impl Lock {
    const EXCLUSIVE: u16 = 1;
    const HOST_PRIORITY: u16 = 2;
    const READER: u16 = 4;

    /// The 16 bits as they lie in memory.
    pub const fn word(self) -> u16 {
        self.0
    }
    /// Whether nobody holds it; the host's priority may stand.
    pub const fn is_free(self) -> bool {
        self.0 & !Self::HOST_PRIORITY == 0
    }
    /// Whether nobody holds it and the host has not tried in vain.
    pub const fn is_idle(self) -> bool {
        self.0 == 0
    }

    /// Takes the host's priority off.
    pub fn forget_priority(&mut self) {
        self.0 &= !Self::HOST_PRIORITY;
    }

    const fn blocked(self, mode: Mode) -> bool {
        match mode {
            Mode::Shared => self.0 & Self::EXCLUSIVE != 0,
            Mode::Exclusive => self.0 & !Self::HOST_PRIORITY != 0,
        }
    }
    fn take(&mut self, mode: Mode) {
        match mode {
            Mode::Shared => self.0 = self.0.saturating_add(Self::READER),
            Mode::Exclusive => self.0 |= Self::EXCLUSIVE,
        }
    }

    /// A host's attempt on a lock without host priority.
    ///
    /// # Errors
    /// Somebody holds it.
    pub fn try_take(&mut self, mode: Mode) -> Result<(), Busy> {
        if self.blocked(mode) {
            return Err(Busy::Taken);
        }
        self.take(mode);
        Ok(())
    }
    /// A host's attempt on a lock with host priority: a failure keeps the lock for the host, a success ends that.
    ///
    /// # Errors
    /// Somebody holds it.
    pub fn try_take_host(&mut self, mode: Mode) -> Result<(), Busy> {
        if self.blocked(mode) {
            self.0 |= Self::HOST_PRIORITY;
            return Err(Busy::Taken);
        }
        self.0 &= !Self::HOST_PRIORITY;
        self.take(mode);
        Ok(())
    }
    /// A guest's attempt on a lock with host priority.
    ///
    /// # Errors
    /// Kept for the host, or somebody holds it.
    pub fn try_take_guest(&mut self, mode: Mode) -> Result<(), Busy> {
        if self.0 & Self::HOST_PRIORITY != 0 {
            return Err(Busy::HostPriority);
        }
        self.try_take(mode)
    }
    /// Turns a shared hold into an exclusive one.
    ///
    /// # Errors
    /// There are other readers.
    pub fn promote(&mut self) -> Result<(), Busy> {
        if self.0 & !Self::HOST_PRIORITY != Self::READER {
            return Err(Busy::Taken);
        }
        self.0 = (self.0 - Self::READER) | Self::EXCLUSIVE;
        Ok(())
    }
    /// Lets go. An exclusive release keeps HOST_PRIORITY.
    pub fn release(&mut self, mode: Mode) {
        match mode {
            Mode::Shared => self.0 = self.0.saturating_sub(Self::READER),
            Mode::Exclusive => self.0 &= !Self::EXCLUSIVE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::{Exclusive, Shared};

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let mut lock = Lock::default();
        assert_eq!(lock.try_take(Shared), Ok(()));
        assert_eq!(lock.try_take(Shared), Ok(()));
        assert_eq!(lock.try_take(Exclusive), Err(Busy::Taken));
        lock.release(Shared);
        lock.release(Shared);
        assert!(lock.is_idle());
        assert_eq!(lock.try_take(Exclusive), Ok(()));
        assert_eq!(lock.try_take(Shared), Err(Busy::Taken));
        assert_eq!(lock.try_take(Exclusive), Err(Busy::Taken));
        lock.release(Exclusive);
        assert!(lock.is_idle());
    }

    #[test]
    fn promotion_needs_to_be_the_only_reader() {
        let mut lock = Lock::default();
        assert_eq!(lock.promote(), Err(Busy::Taken));
        assert_eq!(lock.try_take(Shared), Ok(()));
        assert_eq!(lock.try_take(Shared), Ok(()));
        assert_eq!(lock.promote(), Err(Busy::Taken));
        lock.release(Shared);
        assert_eq!(lock.promote(), Ok(()));
        assert_eq!(lock.try_take(Shared), Err(Busy::Taken));
    }

    #[test]
    fn a_host_that_fails_keeps_the_lock_from_guests_until_a_host_succeeds() {
        let mut lock = Lock::default();
        assert_eq!(lock.try_take_guest(Exclusive), Ok(()));
        assert_eq!(lock.try_take_host(Exclusive), Err(Busy::Taken));
        assert_eq!(lock.try_take_guest(Shared), Err(Busy::HostPriority));
        lock.release(Exclusive);
        assert!(lock.is_free() && !lock.is_idle());
        assert_eq!(lock.try_take_guest(Exclusive), Err(Busy::HostPriority));
        assert_eq!(lock.try_take_host(Shared), Ok(()));
        assert_eq!(lock.try_take_guest(Shared), Ok(()));
    }

    #[test]
    fn a_guest_that_meets_a_guest_is_merely_busy() {
        let mut lock = Lock::default();
        assert_eq!(lock.try_take_guest(Exclusive), Ok(()));
        assert_eq!(lock.try_take_guest(Exclusive), Err(Busy::Taken));
    }
}
