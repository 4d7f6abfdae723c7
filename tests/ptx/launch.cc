// Programs, and grids of blocks on threads of the host.
#include <algorithm>
#include <atomic>
#include <exception>
#include <numeric>
#include <random>
#include <thread>

#include "decoder.h"
#include "layout.h"
#include "machine.h"
#include "operations.h"

namespace ptx {
namespace {

constexpr uint8_t kPoison = 0xff;

// The block of registers as every warp begins with it.
std::vector<uint8_t> FirstRegisters(const Kernel& kernel, const std::vector<uint8_t>& parameters) {
  std::vector<uint8_t> bytes(kernel.register_bytes, kPoison);
  const auto fill = [&](uint32_t place, const void* value, size_t size) {
    for (int lane = 0; lane < kLanes; ++lane)
      std::memcpy(bytes.data() + place + size * lane, value, size);
  };
  for (const Constant& constant : kernel.constants) {
    const uint32_t flags = constant.bits ? kAll : 0;
    if (constant.bytes == 0) {
      std::memcpy(bytes.data() + constant.place, &flags, sizeof(flags));
    } else {
      fill(constant.place, &constant.bits, constant.bytes);
    }
  }
  for (const ParameterUse& use : kernel.parameter_uses) {
    if (use.offset + use.bytes > parameters.size())
      throw Fault("a parameter is read behind its end");
    fill(use.place, parameters.data() + use.offset, use.bytes);
  }
  return bytes;
}

std::vector<uint8_t> Parameters(const Kernel& kernel, void** arguments) {
  if (kernel.parameters.empty()) return {};
  std::vector<uint8_t> bytes(kernel.parameters.back().offset + kernel.parameters.back().bytes,
                             kPoison);
  for (size_t i = 0; i < kernel.parameters.size(); ++i) {
    std::memcpy(bytes.data() + kernel.parameters[i].offset, arguments[i],
                kernel.parameters[i].bytes);
  }
  return bytes;
}

GlobalMemory MemoryOf(const Program& program, const Ranges* ranges) {
  if (ranges == nullptr) return GlobalMemory({}, false);
  std::vector<GlobalMemory::Range> all = ranges->List();
  for (const auto& [name, variable] : program.module().variables) {
    const auto begin = reinterpret_cast<uint64_t>(variable.data);
    all.emplace_back(begin, begin + variable.bytes);
  }
  std::sort(all.begin(), all.end());
  return GlobalMemory(std::move(all), true);
}

// One block at a time, on one thread of the host.
class Block {
 public:
  explicit Block(Grid* grid)
      : grid_(*grid), warps_((grid->launch.block.Count() + kLanes - 1) / kLanes) {}

  void Run(size_t number) {
    const Launch& launch = grid_.launch;
    const Dim3 grid = launch.grid;
    const Dim3 index = {static_cast<unsigned>(number % grid.x),
                        static_cast<unsigned>(number / grid.x % grid.y),
                        static_cast<unsigned>(number / grid.x / grid.y)};
    random_.seed(static_cast<uint32_t>(launch.seed * 2654435761u + number));
    shared_.Reset(grid_.kernel.shared_bytes + launch.dynamic_shared, kPoison, launch.races);
    std::vector<unsigned> running(warps_.size());
    std::iota(running.begin(), running.end(), 0u);
    for (const unsigned warp : running) warps_[warp].Reset(&grid_, &shared_, warp, index);
    std::vector<unsigned> waiting;
    while (!running.empty()) {
      if (launch.seed != 0) std::shuffle(running.begin(), running.end(), random_);
      for (const unsigned warp : running) {
        if (warps_[warp].Run() == Warp::State::kAtBarrier) waiting.push_back(warp);
      }
      running = Release(&waiting);
    }
  }

  Counts counts() const {
    Counts sum;
    for (const Warp& warp : warps_)
      sum.instructions += warp.instructions, sum.lanes += warp.lane_instructions;
    return sum;
  }

 private:
  // Takes warps whose barrier is complete out of those that wait. Fault: there are some that wait,
  // and none of them goes on.
  std::vector<unsigned> Release(std::vector<unsigned>* waiting) {
    if (waiting->empty()) return {};
    std::map<unsigned, unsigned> arrived;
    for (const unsigned warp : *waiting) arrived[warps_[warp].barrier()] += warps_[warp].threads();
    const auto complete = [&](unsigned warp) {
      const unsigned asked = warps_[warp].barrier_threads();
      return arrived[warps_[warp].barrier()] == (asked ? asked : grid_.launch.block.Count());
    };
    const auto middle = std::stable_partition(waiting->begin(), waiting->end(),
                                              [&](unsigned warp) { return !complete(warp); });
    std::vector<unsigned> released(middle, waiting->end());
    waiting->erase(middle, waiting->end());
    if (released.empty()) {
      const Warp& warp = warps_[waiting->front()];
      throw Fault(grid_.kernel.name + ": " + std::to_string(arrived[warp.barrier()]) +
                  " threads wait at barrier " + std::to_string(warp.barrier()) +
                  ", and the others of the block do not reach it; warp " +
                  std::to_string(warp.index()) + " waits at " + warp.Where());
    }
    shared_.Barrier();
    return released;
  }

  Grid& grid_;
  SharedMemory shared_;
  std::vector<Warp> warps_;
  std::mt19937 random_;
};

// What the threads of the host that run a grid share.
class Work {
 public:
  explicit Work(Grid* grid) : grid_(*grid), order_(grid->launch.grid.Count()) {
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::mt19937 random(grid->launch.seed);
    if (grid->launch.seed != 0) std::shuffle(order_.begin(), order_.end(), random);
  }

  Counts Run() {
    const unsigned asked =
        grid_.launch.threads ? grid_.launch.threads : std::thread::hardware_concurrency();
    std::vector<std::thread> others;
    for (size_t i = 1; i < std::min<size_t>(asked, order_.size()); ++i)
      others.emplace_back([this] { RunBlocks(); });
    RunBlocks();
    for (std::thread& other : others) other.join();
    if (failure_) std::rethrow_exception(failure_);
    return counts_;
  }

 private:
  void RunBlocks() {
    Block block(&grid_);
    try {
      for (size_t i = next_++; i < order_.size(); i = next_++) block.Run(order_[i]);
    } catch (...) {
      next_ = order_.size();
      std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
    std::lock_guard<std::mutex> lock(mutex_);
    counts_.instructions += block.counts().instructions, counts_.lanes += block.counts().lanes;
  }

  Grid& grid_;
  std::vector<size_t> order_;
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
  Counts counts_;
};

const Kernel& KernelOf(const Program& program, const std::string& entry) {
  const auto found = program.module().kernels.find(entry);
  if (found == program.module().kernels.end())
    throw std::runtime_error("there is no kernel " + entry);
  return found->second;
}

Table MakeTable() {
  Table table;
  AddIntegers(&table);
  AddFloats(&table);
  AddHalves(&table);
  AddConversions(&table);
  AddExchanges(&table);
  AddMatrices(&table);
  AddCopies(&table);
  AddAtomics(&table);
  return table;
}

}  // namespace

const Table& Operations() {
  static const Table table = MakeTable();
  return table;
}

void Ranges::Add(const void* begin, size_t bytes) {
  std::unique_lock<std::shared_mutex> lock(mutex_);
  ends_[reinterpret_cast<uint64_t>(begin)] = reinterpret_cast<uint64_t>(begin) + bytes;
}
void Ranges::Remove(const void* begin) {
  std::unique_lock<std::shared_mutex> lock(mutex_);
  ends_.erase(reinterpret_cast<uint64_t>(begin));
}
std::vector<std::pair<uint64_t, uint64_t>> Ranges::List() const {
  std::shared_lock<std::shared_mutex> lock(mutex_);
  return {ends_.begin(), ends_.end()};
}

Program::Program(std::unique_ptr<Module> module) : module_(std::move(module)) {}
Program::~Program() = default;

std::vector<std::string> Program::Entries() const {
  std::vector<std::string> names;
  for (const auto& [name, kernel] : module_->kernels) names.push_back(name);
  return names;
}
std::vector<size_t> Program::ParameterBytes(const std::string& entry) const {
  std::vector<size_t> bytes;
  for (const Parameter& parameter : KernelOf(*this, entry).parameters)
    bytes.push_back(parameter.bytes);
  return bytes;
}
std::pair<void*, size_t> Program::Variable(const std::string& name) const {
  const auto found = module_->variables.find(name);
  if (found == module_->variables.end()) return {nullptr, 0};
  return {found->second.data, found->second.bytes};
}

std::unique_ptr<Program> Parse(std::string_view text) {
  const syntax::Module parsed = syntax::ParseModule(text);
  auto module = std::make_unique<Module>();
  module->variables = MakeVariables(parsed);
  for (const auto& [name, function] : parsed.functions) {
    if (function.entry) module->kernels[name] = Decode(parsed, function, module->variables);
  }
  return std::make_unique<Program>(std::move(module));
}

Counts Execute(const Program& program, const Launch& launch) {
  const Kernel& kernel = KernelOf(program, launch.entry);
  if (launch.block.Count() == 0 || launch.block.Count() > 1024)
    throw Fault(launch.entry + ": a block of " + std::to_string(launch.block.Count()) + " threads");
  if (launch.grid.Count() == 0) throw Fault(launch.entry + ": a grid of no blocks");
  Grid grid{kernel,
            launch,
            MemoryOf(program, launch.ranges),
            FirstRegisters(kernel, Parameters(kernel, launch.arguments)),
            {}};
  return Work(&grid).Run();
}

}  // namespace ptx
