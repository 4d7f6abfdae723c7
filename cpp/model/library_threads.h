// The threads that a compiled library runs on: a team of ours in the place of TVM's pool.
//
// A library made by TVM calls "launch a parallel region" and "barrier" through two pointers in it,
// which TVM's runtime fills when it loads the library. This puts functions of ours there. TVM's own
// pool yields the processor in every wait, which beside another process costs it a time slice each.
#ifndef CUPOLA_MODEL_LIBRARY_THREADS_H_
#define CUPOLA_MODEL_LIBRARY_THREADS_H_

#include <string>

#include "support/thread_team.h"

namespace cupola {

// Makes the parallel regions of the loaded library `path` run on the team of the thread that calls
// it, see TeamScope; on this thread alone where there is none.
void RunOnTeams(const std::string& path);

// Gives the calling thread a team, of which `num_workers` work, as long as this lives.
class TeamScope {
 public:
  TeamScope(ThreadTeam* team, int32_t num_workers);
  ~TeamScope();
  TeamScope(const TeamScope&) = delete;
  TeamScope& operator=(const TeamScope&) = delete;
};

}  // namespace cupola

#endif  // CUPOLA_MODEL_LIBRARY_THREADS_H_
