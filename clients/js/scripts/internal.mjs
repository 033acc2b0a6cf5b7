// Properties that neither an application, nor the wire, nor the platform knows: the build of the one file shortens
// them. A name belongs here only if nothing reads it by a string. The tests run against the built file too.
export const INTERNAL = `
  answered answers apply askedMs backlog books broken buffers columns connectTo counters covering covers
  defaultMs define defined drop empty events fail finish forget forgetTokens gone greet handle hintMs inexact
  ingest leastMs lengths lists listen live lost maybeBad mirror most newEpoch oldestMs onEnd outbox parts plan
  post probe pushRaw rank recovering report result retryUnknown rows sent setStates settings
  shown sides sign Socket spent stage states statesDirty stateOf stem subscription symbolsMax take target tell told token
  top use users waiting wanted welcomed whole wide
`
  .trim()
  .split(/\s+/);
