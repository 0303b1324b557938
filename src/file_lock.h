/* A lock that one process of all machines of a shared folder holds: a file that says who. It needs no flock, which NFS
 * may not carry from one machine to another: only that a file is made exclusively (O_EXCL, NFS 3 and later) and that a
 * rename is atomic. A killed holder's lock stays behind; whoever comes next judges it:
 *
 *   same machine (host name and boot), same space of process numbers
 *       the process is gone, or its number belongs to one that started at another time    gone
 *       else                                                                              alive
 *   same host name, another boot                                                          gone
 *   another machine or space
 *       its time has stood still for LOCK_STALE_S seconds                                 gone
 *       its time moves while we look (the holder touches the file every LOCK_BEAT_S)      alive
 *   nothing readable in it (killed while it was made)                                     gone after LOCK_TORN_S seconds
 *
 * Times are compared on the file system's own clock, that of a file made there now, so clocks of machines may differ.
 * A stale lock is replaced, never removed: `path.next`, made exclusively, is renamed over it, and the winner is whoever then
 * finds its own words in the lock. Holders look again before what must not happen twice (file_lock_check). */
#ifndef DYPE_FILE_LOCK_H
#define DYPE_FILE_LOCK_H

#include "status.h"

enum { LOCK_BEAT_S = 15, LOCK_STALE_S = 120, LOCK_TORN_S = 5 };

typedef struct file_lock file_lock;

typedef struct file_lock_opts {
    const char *path; /* its folder exists */
    const char *what; /* "picture alps-7": for messages */
    /* Called about once a second while another machine's holder is watched; NULL: nobody. */
    void (*waiting)(void *context);
    void *context;
} file_lock_opts;

/* ST_OUTPUT, with who holds it since when, when somebody does. Waits LOCK_STALE_S seconds at most, and only for the
 * lock of another machine. */
status file_lock_take(file_lock **out, const file_lock_opts *opts);
/* Says that we live: call it every LOCK_BEAT_S seconds or more often. Any thread. */
void file_lock_beat(const file_lock *lock);
/* ST_OUTPUT when somebody has taken the lock from us (we were stopped for long). Any thread. */
status file_lock_check(const file_lock *lock);
/* Removes the lock, if it is still ours; accepts NULL. */
void file_lock_release(file_lock *lock);

#endif
