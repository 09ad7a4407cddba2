-- Everything below a prefix, as JSON: {key, type, remaining ms, value} of each key.
local keys = redis.call('KEYS', ARGV[1] .. ':*')
table.sort(keys)
local READ = {
  string = { 'GET' },
  list = { 'LRANGE', 0, -1 },
  set = { 'SMEMBERS' },
  zset = { 'ZRANGE', 0, -1, 'WITHSCORES' },
  hash = { 'HGETALL' },
  stream = { 'XRANGE', '-', '+' },
}
local dump = {}
for _, key in ipairs(keys) do
  local kind = redis.call('TYPE', key).ok
  local read = READ[kind]
  local value = redis.call(read[1], key, unpack(read, 2))
  dump[#dump + 1] = { key, kind, redis.call('PTTL', key), value }
end
return cjson.encode(dump)
