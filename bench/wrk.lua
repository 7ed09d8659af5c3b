-- Requests as the scenario wants them, and one line of JSON at the end.
-- Arguments after "--": method, bytes of body, requests in one write, what varies ("nothing", "line", "head"), then
-- headers as "Name: value".

-- More than any server remembers.
local VARIANTS = 8192

function init(arguments)
  wrk.method = arguments[1]
  local size, pipeline = tonumber(arguments[2]), tonumber(arguments[3])
  for i = 5, #arguments do
    local name, value = arguments[i]:match("^(.-): (.*)$")
    wrk.headers[name] = value
  end
  if size > 0 then wrk.body = string.rep("x", size) end
  local vary = arguments[4]
  whole, count, at = {}, vary == "nothing" and 1 or VARIANTS, 0
  for i = 1, count do
    local path = wrk.path
    if vary ~= "nothing" then path = path .. (path:find("?", 1, true) and "&" or "?") .. "n=" .. i end
    if vary == "ends" then wrk.headers["X-Trace-Id"] = string.format("%032x", i * 2654435761) end
    if vary == "head" or vary == "ends" then wrk.headers["X-Request-Id"] = string.format("%032x", i * 2654435761) end
    whole[i] = string.rep(wrk.format(nil, path), pipeline)
  end
end

function request()
  at = at % count + 1
  return whole[at]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "bytes": %d, "p50": %.3f, "p99": %.3f, "p999": %.3f, "max": %.3f, ' ..
    '"failures": {"refused": %d, "cut": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3,
    e.connect, e.read, e.write, e.status, e.timeout))
end
