//! How NFS targets are verified: `[mounts] mode`, or the target's own `mount_mode`.

named! {
    /// How an NFS target is verified.
    MountMode {
        /// Mounted by the kernel, measured and written through the mount.
        Kernel => "kernel",
        /// Through a private mount of the agent. Another program owns the mount path.
        Observe => "observe",
        /// Over the wire, without mounting.
        None => "none",
    }
}
