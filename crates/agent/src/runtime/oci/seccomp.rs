//! Which system calls a container may make. What is not named fails with ENOSYS, as on a kernel
//! that does not have it, so that programs take the way around it that they have anyhow.
//!
//! Left out are those that change the machine rather than the container: mounts, modules, kexec,
//! reboot, clocks, swap, quotas, BPF, performance events, keyrings, fanotify, handles of files,
//! io_uring, userfaultfd, new namespaces, and what kernels have dropped.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// What is allowed whatever its arguments are.
const ALLOWED: &str = "\
    read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask \
    rt_sigreturn ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise \
    shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile connect accept sendto \
    recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt fork vfork \
    execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync \
    truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod \
    chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid getgid setuid setgid \
    geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid \
    setresgid getresgid getpgid setfsuid setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo \
    rt_sigsuspend sigaltstack utime mknod statfs fstatfs getpriority setpriority sched_setparam sched_getparam \
    sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock \
    munlock mlockall munlockall modify_ldt prctl arch_prctl setrlimit chroot sync gettid readahead setxattr lsetxattr \
    fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill \
    time futex sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit \
    io_cancel get_thread_area epoll_create epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address \
    restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime timer_getoverrun timer_delete \
    clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill utimes mbind set_mempolicy \
    get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr waitid ioprio_set ioprio_get \
    inotify_init inotify_add_watch inotify_rm_watch openat mkdirat mknodat fchownat futimesat newfstatat unlinkat \
    renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll set_robust_list get_robust_list splice tee \
    sync_file_range vmsplice utimensat epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime \
    timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev \
    rt_tgsigqueueinfo recvmmsg prlimit64 syncfs sendmmsg getcpu process_vm_readv process_vm_writev sched_setattr \
    sched_getattr renameat2 seccomp getrandom memfd_create execveat membarrier mlock2 copy_file_range preadv2 pwritev2 \
    pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq pidfd_send_signal pidfd_open close_range openat2 \
    faccessat2 process_madvise epoll_pwait2 landlock_create_ruleset landlock_add_rule landlock_restrict_self \
    memfd_secret process_mrelease futex_waitv fchmodat2 cachestat map_shadow_stack futex_wake futex_wait \
    futex_requeue statmount listmount getxattrat setxattrat listxattrat removexattrat mseal uretprobe \
    set_mempolicy_home_node _llseek _newselect chown32 fadvise64_64 fchown32 fcntl64 fstat64 fstatat64 fstatfs64 \
    ftruncate64 futex_time64 getegid32 geteuid32 getgid32 getgroups32 getresgid32 getresuid32 getuid32 ipc lchown32 \
    lstat64 mmap2 clock_gettime64 clock_getres_time64 clock_nanosleep_time64 ppoll_time64 pselect6_time64 recv \
    recvmmsg_time64 rt_sigtimedwait_time64 send sendfile64 setfsgid32 setfsuid32 setgid32 setgroups32 setregid32 \
    setresgid32 setresuid32 setreuid32 setuid32 sigaction signal sigpending sigprocmask sigreturn sigsuspend \
    socketcall stat64 statfs64 sync_file_range2 timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64 \
    truncate64 ugetrlimit utimensat_time64 waitpid arm_fadvise64_64 breakpoint cacheflush set_tls";

/// The flags by which clone(2) makes namespaces: mount, cgroup, uts, ipc, user, pid and network.
const NEW_NAMESPACES: u64 = 0x7E02_0000;
/// The address family of virtual sockets, which lead to the hypervisor.
const AF_VSOCK: u64 = 40;
/// "Operation not permitted", "no such system call", on every Linux.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The default profile.
pub(super) fn profile() -> LinuxSeccomp {
    let allow = |names: &str| call(names, LinuxSeccompAction::ScmpActAllow);
    let built = |syscall: LinuxSyscallBuilder| syscall.build().expect("all fields are set");
    // What the runtime itself needs while it starts the container is allowed before the profile holds.
    let personality = [0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF]
        .map(|kind| built(allow("personality").args(argument(0, kind, 0, LinuxSeccompOperator::ScmpCmpEq))));
    let mut syscalls: Vec<LinuxSyscall> = vec![
        built(allow(ALLOWED)),
        built(allow("clone").args(argument(0, NEW_NAMESPACES, 0, LinuxSeccompOperator::ScmpCmpMaskedEq))),
        built(allow("socket").args(argument(0, AF_VSOCK, 0, LinuxSeccompOperator::ScmpCmpNe))),
        // Its flags lie in memory, where no filter sees them; without it programs take clone.
        built(call("clone3", LinuxSeccompAction::ScmpActErrno).errno_ret(ENOSYS)),
        built(call("mount umount2 pivot_root unshare setns bpf", LinuxSeccompAction::ScmpActErrno).errno_ret(EPERM)),
    ];
    syscalls.extend(personality);
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(ENOSYS)
        .architectures(architectures())
        .syscalls(syscalls)
        .build()
        .expect("all fields are set")
}

fn argument(index: usize, value: u64, value_two: u64, op: LinuxSeccompOperator) -> Vec<LinuxSeccompArg> {
    let argument = LinuxSeccompArgBuilder::default().index(index).value(value).value_two(value_two).op(op);
    vec![argument.build().expect("all fields are set")]
}

fn call(names: &str, action: LinuxSeccompAction) -> LinuxSyscallBuilder {
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    LinuxSyscallBuilder::default().names(names).action(action)
}

fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_machine_is_not_allowed() {
        let allowed: Vec<&str> = ALLOWED.split_whitespace().collect();
        for name in [
            "mount",
            "umount2",
            "pivot_root",
            "unshare",
            "setns",
            "init_module",
            "finit_module",
            "delete_module",
            "kexec_load",
            "kexec_file_load",
            "reboot",
            "swapon",
            "settimeofday",
            "clock_settime",
            "bpf",
            "perf_event_open",
            "keyctl",
            "add_key",
            "open_by_handle_at",
            "userfaultfd",
            "io_uring_setup",
            "quotactl",
            "fsopen",
            "move_mount",
            "open_tree",
            "iopl",
            "ioperm",
            "acct",
            "syslog",
            "fanotify_init",
            "clone",
            "clone3",
            "socket",
            "pidfd_getfd",
        ] {
            assert!(!allowed.contains(&name), "{name}");
        }
    }
}
