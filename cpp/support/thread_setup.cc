#include "support/thread_setup.h"

#include <pthread.h>
#include <signal.h>

#include <initializer_list>

namespace cupola {

void SetUpThread(const char* name) {
  pthread_setname_np(pthread_self(), name);
  sigset_t signals;
  sigfillset(&signals);
  // A fault of the thread's own must still reach its handler, which prints where it happened.
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&signals, fault);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

}  // namespace cupola
