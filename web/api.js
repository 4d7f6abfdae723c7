// The page's door to the server: the models it offers, and a stream of answer pieces. Knows no element of the page.

/** An answer of the server that is not a success, with its sentence. */
export class ApiError extends Error {}

/** The models that can chat: [{id, takesImages}]. A card that says nothing of what its model can do counts as chat. */
export async function fetchModels(apiKey) {
  const response = await request("v1/models", { headers: headers(apiKey) });
  const { data } = await response.json();
  return data
    .filter(({ capabilities }) => !capabilities || capabilities.includes("chat"))
    .map(({ id, capabilities }) => ({ id, takesImages: capabilities?.includes("images") ?? false }));
}

/**
 * Asks for a chat completion and yields its pieces as they come: {text}, {reasoning}, {call} with {index, id, name,
 * arguments} of which later ones continue earlier ones, {reason} at the end of the answer and {usage} after it.
 * Ends early with an AbortError when `signal` fires.
 */
export async function* streamChat(body, apiKey, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { ...headers(apiKey), "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const { error, choices, usage } = JSON.parse(data);
    if (error) throw new ApiError(error.message);
    if (choices[0]) yield* pieces(choices[0]);
    if (usage) yield { usage };
  }
  throw new ApiError("The server ended the answer early.");
}

function* pieces({ delta, finish_reason: reason }) {
  if (delta.reasoning_content) yield { reasoning: delta.reasoning_content };
  if (delta.content) yield { text: delta.content };
  for (const { index, id, function: called } of delta.tool_calls ?? []) {
    yield { call: { index, id, name: called?.name, arguments: called?.arguments ?? "" } };
  }
  if (reason) yield { reason };
}

function headers(apiKey) {
  return apiKey ? { authorization: `Bearer ${apiKey}` } : {};
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (cause) {
    if (cause.name === "AbortError") throw cause;
    throw new ApiError("The server cannot be reached.", { cause });
  }
  if (response.ok) return response;
  if (response.status === 401) throw new ApiError("This server asks for an API key: enter it in the settings.");
  const body = await response.json().catch(() => null);
  throw new ApiError(body?.error?.message ?? `The server answered with status ${response.status}.`);
}

/** The `data:` lines of a stream of server-sent events, wherever the network cuts it. */
async function* events(stream) {
  let rest = "";
  for await (const chunk of chunks(stream.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.releaseLock();
  }
}
