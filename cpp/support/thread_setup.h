// What a thread of ours does first.
#ifndef CUPOLA_SUPPORT_THREAD_SETUP_H_
#define CUPOLA_SUPPORT_THREAD_SETUP_H_

namespace cupola {

// Names the calling thread (at most 15 characters) for debuggers, and leaves signals that are sent
// to the process, such as SIGTERM, to the threads of whoever runs us. Threads that it starts later
// inherit that.
void SetUpThread(const char* name);

}  // namespace cupola

#endif  // CUPOLA_SUPPORT_THREAD_SETUP_H_
