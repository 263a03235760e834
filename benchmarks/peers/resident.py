"""What the peers of `segbench vs-peers` share: prepare once, answer one line of JSON, then one repetition for each line read from stdin:
  -> {"peer": ..., "version": ..., and what the caller compares}   or {"error": why it cannot run}
  <- go     -> {"seconds": wall, "cpu_seconds": of all threads, "rss": peak resident bytes}
Whatever libraries print goes to stderr. Import this before torch: idle threads must not spin, that would count as work."""
import argparse, json, os, resource, sys, time
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
os.environ.setdefault('KMP_BLOCKTIME', '0')
answers = os.fdopen(os.dup(1), 'w')
os.dup2(2, 1)


def arguments(description):
    a = argparse.ArgumentParser(description=description)
    a.add_argument('--peer', required=True), a.add_argument('--case', required=True)
    a.add_argument('--files', required=True, help='folder for what the two sides exchange')
    a.add_argument('--data', required=True, help='folder of the test data'), a.add_argument('--threads', type=int, default=2)
    return a.parse_args()


def say(**answer):
    print(json.dumps(answer), file=answers, flush=True)


def serve(name, prepare):
    """prepare() -> (dictionary for the first answer, function for one repetition; the function may return the seconds to count as (wall, cpu))."""
    try:
        first, repeat = prepare()
    except Exception as e:  # not installed, or not possible on this machine
        return say(error=f'{type(e).__name__}: {e}'.replace('\n', ' ')[:300])
    say(peer=name, **first)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            counted = repeat()
        except Exception as e:
            return say(error=f'{type(e).__name__}: {e}'.replace('\n', ' ')[:300])
        wall, cpu = counted or (time.perf_counter() - wall, time.process_time() - cpu)
        say(seconds=wall, cpu_seconds=cpu, rss=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
